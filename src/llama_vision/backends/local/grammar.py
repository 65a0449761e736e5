"""What an answer has to look like, as a grammar for llguidance."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from llama_vision.backends.local.schema_narrowing import ANY_VALUE, Schema, narrow_schema
from llama_vision.core.request import ChatRequest, ResponseFormat, Tool

_ANY_OBJECT: Schema = {"type": "object"}

# Llama writes its JSON with these spaces. Where a grammar lets it choose, a small model loses itself in white space.
_JSON_WHITESPACE: Schema = {
    "x-guidance": {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
}

TOOL_CALL_PREFIX = '{"name"'
"""With these characters an answer begins to be a call."""

# Negation may match what is no UTF-8, so it is joined with what may be any text (llguidance, docs/syntax.md).
_TEXT_OR_CALL = rf"""start: PROSE | call | <|python_tag|> (PROSE | call)
PROSE: /(?s:.*)/ & ~/\{TOOL_CALL_PREFIX}(?s:.*)/
"""


@dataclass(frozen=True, slots=True)
class GrammarSchema:
    """One schema of a grammar.

    Attributes:
        label: What to call it when it is refused.
        schema: The schema, complete in itself.

    """

    label: str
    schema: Schema


@dataclass(frozen=True, slots=True)
class Grammar:
    """What an answer has to look like.

    Attributes:
        lark: In llguidance's variant of Lark's syntax.
        parts: The schemas it is made from.
        allows_free_text: Whether the answer may also be any text that does not begin with `TOOL_CALL_PREFIX`.

    """

    lark: str
    parts: tuple[GrammarSchema, ...]
    allows_free_text: bool


def build_grammar(request: ChatRequest) -> Grammar | None:
    """Work out what the answer to a request has to look like.

    Args:
        request: Its tools, `tool_choice`, `text_tool_calls` and `response_format` count.

    Returns:
        The grammar, or None where the answer is free.

    """
    tools, required = _callable_tools(request)
    wanted = None if required else _response_schema(request.response_format)
    if required or wanted is not None:
        return _tool_call_or_json(tools, wanted)
    return _tool_call_or_text(tools) if tools else None


def _callable_tools(request: ChatRequest) -> tuple[Sequence[Tool], bool]:
    """Choose the tools that may be called, and tell whether one has to be."""
    mode = "auto" if request.tool_choice is None else request.tool_choice.mode
    match mode:
        case "auto":
            return request.tools if request.text_tool_calls else (), False
        case "none":
            return (), False
        case "required":
            return request.tools, True
        case "named":
            name = request.tool_choice and request.tool_choice.name
            return [tool for tool in request.tools if tool.name == name], True
        case _:
            assert_never(mode)


def _response_schema(wanted: ResponseFormat | None) -> Schema | None:
    if wanted is None:
        return None
    match wanted.type:
        case "text":
            return None
        case "json_object":
            return _ANY_OBJECT
        case "json_schema":
            return _ANY_OBJECT if wanted.schema is None else dict(wanted.schema)
        case _:
            assert_never(wanted.type)


def _tool_call_or_json(tools: Sequence[Tool], answer: Schema | None) -> Grammar:
    """Allow a call of one of the tools, or JSON as an answer, in one schema: both may begin alike."""
    places = {f"tool{number}": _parameters(tool) for number, tool in enumerate(tools)}
    choices = [
        _strict_object({"name": {"const": tool.name}, "parameters": {"$ref": f"#/$defs/{place}"}})
        for tool, place in zip(tools, places, strict=True)
    ]
    parts = [_tool_part(tool) for tool in tools]
    if answer is not None:
        places["answer"] = answer
        choices.append({"$ref": "#/$defs/answer"})
        parts.append(
            GrammarSchema("response_format", _bundle_defs({"$ref": "#/$defs/answer"}, {"answer": answer}))
        )
    lark = f"start: %json {_json(_bundle_defs({'anyOf': choices}, places))}\n"
    return Grammar(lark, tuple(parts), allows_free_text=False)


def _tool_call_or_text(tools: Sequence[Tool]) -> Grammar:
    """Allow a call of one of the tools, or any text that does not begin like one.

    A call's beginning is spelled out, as it has to be read side by side with the text: llguidance decides between a text
    and a schema at the first character that both may begin with.
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
    """Get the schema of a tool's arguments, which are an object whether it says so or not."""
    given = dict(tool.parameters)
    return {"type": "object", **(given or {"properties": {}})}


def _strict_object(properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _bundle_defs(root: Schema, places: dict[str, Schema]) -> Schema:
    """Put schemas into one, each with its own `$defs` left inside it, so that equal names don't meet."""
    inside = {name: narrow_schema(schema, f"#/$defs/{name}") for name, schema in places.items()}
    return {**_JSON_WHITESPACE, **root, "$defs": {**inside, "any": ANY_VALUE}}


def _json(value: Any) -> str:
    """Write JSON, whose strings are Lark's too."""
    return json.dumps(value, ensure_ascii=False)
