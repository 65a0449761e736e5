"""Reads out of a prompt what was put into words for lack of a field, as a model would: tools, a demand, results, a schema."""

import json
import re
from typing import Any

_DEFINITIONS = re.compile(r"They are defined as follows\.\n\n(?=\{)")
_FORM_OF_A_CALL = re.compile(
    r"\s*Where you need one, reply with nothing but the call, .*?(?:\n\n|\Z)", re.DOTALL
)
_DEMAND = re.compile(
    r"\s*Reply to this with a call of (?:the function (?P<name>\S+)|one of the functions) and with nothing else.*",
    re.DOTALL,
)
_RESULT = re.compile(r"(?:The call of \S+|Call \d+, of \S+,) returned (?:[\w ]+ and )?(?P<text>\".*\")")
_SCHEMA = re.compile(
    r"\s*Answer with one JSON value and nothing else: .*?JSON schema, [^\n]*\n(?=\{)", re.DOTALL
)
_JSON = json.JSONDecoder()


def in_fields(body: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Move what a prompt says in words to the fields of chat completions, and leave the user's own words.

    Args:
        body: Of a request.

    Returns:
        The body that says the same, and whether a call is to be written as text.
    """
    tools: list[dict[str, Any]] = []
    fields: dict[str, Any] = {}
    messages = [
        _heard(message, tools, fields) if message["role"] == "user" else message
        for message in body["messages"]
    ]
    if tools:
        fields["tools"] = tools
    return {**body, "messages": messages, **fields}, bool(tools) or "tool_choice" in fields


def _heard(message: dict[str, Any], tools: list[dict[str, Any]], fields: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content") or ""
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    blocks = [
        {**block, "text": _words(block["text"], tools, fields)} if block["type"] == "text" else block
        for block in content
    ]
    if (
        blocks
        and (told := _RESULT.search(blocks[-1].get("text", "")))
        and not blocks[-1]["text"][told.end() :]
    ):
        return {"role": "tool", "content": json.loads(told["text"])}
    return {**message, "content": blocks}


def _words(text: str, tools: list[dict[str, Any]], fields: dict[str, Any]) -> str:
    """Keep the user's words, and note the rest."""
    if begin := _DEFINITIONS.search(text):
        found, end = _definitions(text, begin.end())
        tools += found
        text = _FORM_OF_A_CALL.sub("", text[end:], count=1)
    if demand := _DEMAND.search(text):
        name = demand["name"]
        fields["tool_choice"] = {"type": "function", "function": {"name": name}} if name else "required"
        text = text[: demand.start()]
    if schema := _SCHEMA.search(text):
        value, _ = _JSON.raw_decode(text, schema.end())
        fields["response_format"] = {"type": "json_schema", "json_schema": {"schema": value}}
        text = text[: schema.start()]
    return text


def _definitions(text: str, at: int) -> tuple[list[dict[str, Any]], int]:
    found = []
    while text.startswith("{", at):
        value, end = _JSON.raw_decode(text, at)
        found.append(value)
        at = end + 2 if text.startswith("\n\n{", end) else end
    return found, at
