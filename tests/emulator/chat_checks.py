"""What a strict chat completions endpoint refuses, after DeepInfra's `OpenAIChatCompletionsIn` and its guides."""

import base64
import binascii
import io
import json
import warnings
from typing import Any

import PIL.Image

_MOST_IMAGE_BYTES = 20_000_000
_FORMATS = {"image/jpeg": "JPEG", "image/jpg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}
_ROLES = ("system", "user", "assistant", "tool")
_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (1e-9, 1),
    "min_p": (0, 1),
    "top_k": (0, 999),
    "max_tokens": (0, 1_000_000),
    "n": (1, 4),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
    "repetition_penalty": (0.01, 5),
    "seed": (-(2**63), 2**64 - 1),
}


class WrongRequestError(Exception):
    """What is wrong with a request, and where."""

    def __init__(self, status: int, message: str, *place: str | int, kind: str = "value_error") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.place = place
        self.kind = kind


def check_body(body: Any) -> None:
    """Find the first thing that is wrong.

    Raises:
        WrongRequestError: With the status that it gets.

    """
    if not isinstance(body, dict):
        raise WrongRequestError(422, "value is not a valid dict", kind="type_error.dict")
    for name in ("model", "messages"):
        if name not in body:
            raise WrongRequestError(422, "field required", name, kind="value_error.missing")
    if not isinstance(body["messages"], list) or not body["messages"]:
        raise WrongRequestError(422, "ensure this value has at least 1 items", "messages")
    for name, (low, high) in _RANGES.items():
        value = body.get(name)
        if value is not None and not (isinstance(value, int | float) and low <= value <= high):
            raise WrongRequestError(422, f"ensure this value is from {low:g} to {high:g}", name)
    called: set[str] = set()
    for position, message in enumerate(body["messages"]):
        _check_message(message, position, called)
    _check_tools(body)
    _check_response_format(body.get("response_format"))


def _check_message(message: Any, position: int, called: set[str]) -> None:
    place = ("messages", position)
    role = message.get("role") if isinstance(message, dict) else None
    if role not in _ROLES:
        raise WrongRequestError(422, f"role has to be one of {', '.join(_ROLES)}", *place, "role")
    content = message.get("content")
    calls = message.get("tool_calls")
    _check_content(content, role, *place, "content")
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


def _check_content(content: Any, role: str, *place: str | int) -> None:
    if isinstance(content, list):
        for block in content:
            _check_block(block, role, *place)
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


def _check_block(block: Any, role: str, *place: str | int) -> None:
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
    _check_image_url(image["url"])


def _check_image_url(url: str) -> None:
    if url.startswith(("http://", "https://")):
        return  # the real one would fetch it
    head, _, data = url.partition(",")
    media_type = head.removeprefix("data:").removesuffix(";base64")
    if not head.startswith("data:") or not head.endswith(";base64"):
        raise WrongRequestError(400, "An image is an http(s) address or a base64 data URL")
    if media_type not in _FORMATS:
        raise WrongRequestError(400, f"Unsupported image type {media_type}: use jpg, png or webp")
    try:
        content = base64.b64decode(data, validate=True)
        with warnings.catch_warnings(), PIL.Image.open(io.BytesIO(content)) as image:
            image.load()
            actual = image.format
    except (binascii.Error, OSError, ValueError, SyntaxError) as error:
        raise WrongRequestError(400, f"Invalid image data: {type(error).__name__}") from None
    if actual != _FORMATS[media_type]:
        raise WrongRequestError(400, f"The image is {actual} and not {media_type}")
    if len(content) > _MOST_IMAGE_BYTES:
        raise WrongRequestError(400, "The image has more than 20 MB")


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
