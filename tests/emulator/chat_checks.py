"""What a strict chat completions endpoint refuses; each provider has rules of its own."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.emulator.image_checks import WrongImageError, read_data_url


@dataclass(frozen=True)
class Rules:
    """What one endpoint documents.

    Attributes:
        ranges: The least and the most, both included, of parameters that are numbers.
        image_types: Pillow's names of the media types that are taken.
        roles: Of messages.
        needs_model: Whether the model has to be named.
        tools: Whether tools can be offered, called and answered.
        parameters: All there are; None where unknown ones are passed over.
        most_image_bytes: Of one file.
        most_stops: How many texts can end a reply.
    """

    ranges: Mapping[str, tuple[float, float]]
    image_types: Mapping[str, str]
    roles: tuple[str, ...] = ("system", "user", "assistant", "tool")
    needs_model: bool = True
    tools: bool = True
    parameters: frozenset[str] | None = None
    most_image_bytes: int = 20_000_000
    most_stops: int = 16


class WrongRequestError(Exception):
    """What is wrong with a request, and where."""

    def __init__(self, status: int, message: str, *place: str | int, kind: str = "value_error") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.place = place
        self.kind = kind


def check_body(body: Any, rules: Rules) -> None:
    """Find the first thing that is wrong.

    Raises:
        WrongRequestError: With the status that it gets.
    """
    if not isinstance(body, dict):
        raise WrongRequestError(422, "value is not a valid dict", kind="type_error.dict")
    for name in ("model", "messages") if rules.needs_model else ("messages",):
        if name not in body:
            raise WrongRequestError(422, "field required", name, kind="value_error.missing")
    if not isinstance(body["messages"], list) or not body["messages"]:
        raise WrongRequestError(422, "ensure this value has at least 1 items", "messages")
    for name in body:
        if rules.parameters is not None and name not in rules.parameters:
            raise WrongRequestError(422, "Unrecognized key in object", name)
    _check_numbers(body, rules)
    called: set[str] = set()
    for position, message in enumerate(body["messages"]):
        _check_message(message, rules, position, called)
    _check_tools(body)
    _check_response_format(body.get("response_format"))


def _check_numbers(body: dict[str, Any], rules: Rules) -> None:
    for name, (low, high) in rules.ranges.items():
        value = body.get(name)
        if value is not None and not (isinstance(value, int | float) and low <= value <= high):
            raise WrongRequestError(422, f"ensure this value is from {low:g} to {high:g}", name)
    stops = body.get("stop") or ()
    if not isinstance(stops, str) and len(stops) > rules.most_stops:
        raise WrongRequestError(422, f"ensure this value has at most {rules.most_stops} items", "stop")
    options = body.get("stream_options")
    if options is not None and "include_usage" not in options:
        raise WrongRequestError(422, "field required", "stream_options", "include_usage")


def _check_message(message: Any, rules: Rules, position: int, called: set[str]) -> None:
    place = ("messages", position)
    role = message.get("role") if isinstance(message, dict) else None
    if role not in rules.roles:
        raise WrongRequestError(422, f"role has to be one of {', '.join(rules.roles)}", *place, "role")
    content = message.get("content")
    calls = message.get("tool_calls")
    _check_content(content, role, rules, *place, "content")
    if calls is not None and not rules.tools:
        raise WrongRequestError(422, "Unrecognized key in object", *place, "tool_calls")
    if calls is not None and (role != "assistant" or not calls):
        raise WrongRequestError(
            422, "tool_calls belong to an assistant, and are not empty", *place, "tool_calls"
        )
    if content is None and not (role == "assistant" and calls):
        raise WrongRequestError(422, "field required", *place, "content", kind="value_error.missing")
    for call in calls or ():
        _check_call(call, *place, "tool_calls")
        called.add(call["id"])
    if role == "tool":
        if not isinstance(content, str):
            raise WrongRequestError(422, "str type expected", *place, "content", kind="type_error.str")
        if message.get("tool_call_id") not in called:
            raise WrongRequestError(400, f"messages[{position}] answers a tool call that nobody made")


def _check_content(content: Any, role: str, rules: Rules, *place: str | int) -> None:
    if isinstance(content, list):
        for block in content:
            _check_block(block, role, rules, *place)
    elif content is not None and not isinstance(content, str):
        raise WrongRequestError(422, "str type expected", *place, kind="type_error.str")


def _check_call(call: Any, *place: str | int) -> None:
    function = call.get("function") or {}
    if not isinstance(call.get("id"), str) or call.get("type") != "function" or not function.get("name"):
        raise WrongRequestError(
            422, "a call has an id, the type function, and a function with a name", *place
        )
    try:
        json.loads(function["arguments"])
    except (KeyError, TypeError, ValueError):
        raise WrongRequestError(
            422, "arguments have to be a string of JSON", *place, "function", "arguments"
        ) from None


def _check_block(block: Any, role: str, rules: Rules, *place: str | int) -> None:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind == "text" and isinstance(block.get("text"), str):
        return
    image = block.get("image_url") if kind == "image_url" else None
    if not isinstance(image, dict) or not isinstance(image.get("url"), str):
        raise WrongRequestError(
            422, "a part is {type: text, text} or {type: image_url, image_url: {url}}", *place
        )
    if role != "user":
        raise WrongRequestError(400, "Images are only allowed in user messages")
    if image["url"].startswith(("http://", "https://")):
        return  # the real one would fetch it
    try:
        content = read_data_url(image["url"], rules.image_types)
    except WrongImageError as wrong:
        raise WrongRequestError(400, str(wrong)) from None
    if len(content) > rules.most_image_bytes:
        raise WrongRequestError(400, f"The image has more than {rules.most_image_bytes} bytes")


def _check_tools(body: dict[str, Any]) -> None:
    tools = body.get("tools")
    choice = body.get("tool_choice")
    if tools is None:
        if choice not in (None, "none", "auto"):
            raise WrongRequestError(400, "tool_choice needs tools")
        return
    if not isinstance(tools, list) or not tools:
        raise WrongRequestError(400, "tools must not be empty")
    for position, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or not function.get("name"):
            raise WrongRequestError(
                422, "a tool is {type: function, function: {name, ...}}", "tools", position
            )
        if not isinstance(function.get("parameters", {}), dict):
            raise WrongRequestError(
                422, "parameters are a JSON schema", "tools", position, "function", "parameters"
            )
    names = [tool["function"]["name"] for tool in tools]
    if isinstance(choice, dict):
        if choice.get("type") != "function" or choice.get("function", {}).get("name") not in names:
            raise WrongRequestError(400, "tool_choice names a tool that is not offered")
    elif choice not in (None, "none", "auto", "required"):
        raise WrongRequestError(422, "tool_choice is none, auto, required or a function", "tool_choice")


def _check_response_format(wanted: Any) -> None:
    if wanted is None:
        return
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind not in ("text", "json_object", "json_schema", "regex"):
        raise WrongRequestError(422, "unknown type", "response_format", "type")
    if kind == "json_schema":
        schema = wanted.get("json_schema")
        if (
            not isinstance(schema, dict)
            or not schema.get("name")
            or not isinstance(schema.get("schema"), dict)
        ):
            raise WrongRequestError(422, "json_schema is {name, schema}", "response_format", "json_schema")
