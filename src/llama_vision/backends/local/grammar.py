"""The grammar of a request's output: tools and response format as Lark for llguidance."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from llama_vision.backends.local.schema_narrowing import ANY_VALUE, Schema, narrow_schema
from llama_vision.backends.local.schema_relaxation import relax_schema
from llama_vision.core.request import ChatRequest, ResponseFormat, Tool

_ANY_OBJECT: Schema = {"type": "object"}

# Llama writes its JSON with these spaces. Where a grammar leaves the choice, a small model may write spaces without end.
_JSON_WHITESPACE: Schema = {
    "x-guidance": {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
}

TOOL_CALL_PREFIX = '{"name"'
"""Output that begins with these characters is a tool call."""

# Negation may match invalid UTF-8, so it is intersected with any text (llguidance, docs/syntax.md).
_TEXT_OR_CALL = rf"""start: TEXT | call | <|python_tag|> (TEXT | call)
TEXT: /(?s:.*)/ & ~/\{TOOL_CALL_PREFIX}(?s:.*)/
"""


@dataclass(frozen=True, slots=True)
class GrammarSchema:
    """One self-contained schema of a grammar, with its name in error messages."""

    label: str
    schema: Schema


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the output has to match.

    Attributes:
        lark: In llguidance's variant of Lark's syntax.
        parts: The schemas it is made from.
        allows_free_text: Whether it also matches any text that does not begin with `TOOL_CALL_PREFIX`.
    """

    lark: str
    parts: tuple[GrammarSchema, ...]
    allows_free_text: bool


def relax_request(request: ChatRequest) -> ChatRequest:
    """Relax the schemas that need not be enforced in full: those that say `strict=False`."""
    tools = tuple(
        replace(tool, parameters=relax_schema(tool.parameters)) if tool.strict is False else tool
        for tool in request.tools
    )
    form = request.response_format
    if form is not None and form.strict is False and form.schema is not None:
        form = replace(form, schema=relax_schema(form.schema))
    return replace(request, tools=tools, response_format=form)


def build_grammar(request: ChatRequest) -> Grammar | None:
    """Build the grammar of a request's tools and response format; None where the output is not restricted."""
    tools, required = _callable_tools(request)
    schema = None if required else _response_schema(request.response_format)
    if required or schema is not None:
        return _tool_call_or_json(tools, schema)
    return _tool_call_or_text(tools) if tools else None


def _callable_tools(request: ChatRequest) -> tuple[Sequence[Tool], bool]:
    """The tools that may be called, and whether one has to be."""
    choice = request.tool_choice
    if choice is None or choice.mode in ("auto", "none"):
        return request.text_parsed_tools, False
    if choice.mode == "required":
        return request.tools, True
    return [tool for tool in request.tools if tool.name == choice.name], True


def _response_schema(response_format: ResponseFormat | None) -> Schema | None:
    if response_format is None or response_format.type == "text":
        return None
    if response_format.type == "json_object" or response_format.schema is None:
        return _ANY_OBJECT
    return dict(response_format.schema)


def _tool_call_or_json(tools: Sequence[Tool], response: Schema | None) -> Grammar:
    """Allow a tool call or the response format in one schema, since both may begin alike."""
    defs = {f"tool{number}": _parameters(tool) for number, tool in enumerate(tools)}
    choices = [
        _strict_object({"name": {"const": tool.name}, "parameters": {"$ref": f"#/$defs/{name}"}})
        for tool, name in zip(tools, defs, strict=True)
    ]
    parts = [_tool_part(tool) for tool in tools]
    if response is not None:
        ref: Schema = {"$ref": "#/$defs/response"}
        defs["response"] = response
        choices.append(ref)
        parts.append(GrammarSchema("response_format", _bundle_defs(ref, {"response": response})))
    lark = f"start: %json {_json(_bundle_defs({'anyOf': choices}, defs))}\n"
    return Grammar(lark, tuple(parts), allows_free_text=False)


def _tool_call_or_text(tools: Sequence[Tool]) -> Grammar:
    """Allow a tool call, or any text that does not begin like one.

    The opening of a call is spelled out, because llguidance decides between a text and a schema at the first character
    that both may begin with.
    """
    parts = [_tool_part(tool) for tool in tools]
    calls = "".join(
        f"call_{number}: {_json(_call_opening(tool))} %json {_json(part.schema)} {_json('}')}\n"
        for number, (tool, part) in enumerate(zip(tools, parts, strict=True))
    )
    names = " | ".join(f"call_{number}" for number in range(len(tools)))
    return Grammar(f"{_TEXT_OR_CALL}call: {names}\n{calls}", tuple(parts), allows_free_text=True)


def _call_opening(tool: Tool) -> str:
    return f'{TOOL_CALL_PREFIX}: {_json(tool.name)}, "parameters": '


def _tool_part(tool: Tool) -> GrammarSchema:
    schema = _bundle_defs({"$ref": "#/$defs/tool"}, {"tool": _parameters(tool)})
    return GrammarSchema(f"the parameters of the tool {tool.name!r}", schema)


def _parameters(tool: Tool) -> Schema:
    """The schema of a tool's arguments, which are an object whether it says so or not."""
    return {"type": "object", **(dict(tool.parameters) or {"properties": {}})}


def _strict_object(properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _bundle_defs(root: Schema, defs: dict[str, Schema]) -> Schema:
    """Bundle schemas as `$defs` of one. Each keeps its own `$defs` inside, so that equal names don't collide."""
    narrowed = {name: narrow_schema(schema, f"#/$defs/{name}") for name, schema in defs.items()}
    return {**_JSON_WHITESPACE, **root, "$defs": {**narrowed, "any": ANY_VALUE}}


def _json(value: Any) -> str:
    """Serialize as JSON, whose string literals are Lark's too."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
