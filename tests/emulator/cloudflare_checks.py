"""What the native route of Cloudflare's Llama 3.2 Vision refuses.

The schema is that of https://developers.cloudflare.com/workers-ai/models/llama-3.2-11b-vision-instruct/, with which the
server's own complaints (code 5006) agree; the errors about pictures are those that users saw.
"""

import re
from collections.abc import Iterator
from typing import Any

from tests.emulator.chat_completions import pieces
from tests.emulator.cloudflare_errors import CloudflareError
from tests.emulator.image_checks import WITH_GIF, WrongImageError, opened, read_data_url

CONTEXT = 128_000
DEFAULT_MAX_TOKENS = 256
RANGES = {
    "max_tokens": (1, CONTEXT),
    "temperature": (0, 5),
    "top_p": (0, 2),
    "top_k": (1, 50),
    "seed": (1, 9_999_999_999),
    "repetition_penalty": (0, 2),
    "frequency_penalty": (0, 2),
    "presence_penalty": (0, 2),
}
_WHOLE_NUMBERS = ("max_tokens", "top_k", "seed")
_EVERYWHERE = {"image", "stream", "options", *RANGES}
_OF_PROMPTS = {"prompt", "raw", "lora", *_EVERYWHERE}
_OF_MESSAGES = {"messages", "tools", "functions", *_EVERYWHERE}
_ROLES = ("system", "user", "assistant", "tool")
_MOST_CHARACTERS = 131_072
_LEAST_PIXELS = 10
_READ_AS_IMAGE = re.compile(r"data:image/[\w.+-]+;base64,")
_KINDS = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}


def check_native(body: Any) -> None:
    """Find what is wrong with the body of a native call.

    Raises:
        CloudflareError: With everything that does not fit the schema, or else the first other thing.
    """
    if not isinstance(body, dict):
        raise misfit([f"Type mismatch of '/', '{_kind(body)}' not in 'object'"])
    if {"prompt", "messages"} <= body.keys():
        raise misfit([], matches=2)
    by_prompt, by_messages = list(_prompt_faults(body)), list(_message_faults(body))
    if by_prompt and by_messages:
        raise misfit([*by_prompt, *by_messages])
    texts = [body.get("prompt") or "", *(message["content"] for message in body.get("messages", ()))]
    for text in texts:
        if _READ_AS_IMAGE.search(text):
            raise CloudflareError(8006, "AiError: AiError: Invalid data for image in text")
    if body.get("image") is not None:
        _check_image(body["image"])
    wanted = sum(len(pieces(text)) for text in texts) + body.get("max_tokens", DEFAULT_MAX_TOKENS)
    check_context(wanted)


def check_context(tokens: int) -> None:
    """Refuse what does not fit into the context; what may be answered counts.

    Raises:
        CloudflareError: Where there is too much.
    """
    if tokens > CONTEXT:
        raise CloudflareError(
            5021,
            f"AiError: The estimated number of input and maximum output tokens ({tokens}) exceeded this model context "
            f"window limit ({CONTEXT}).",
            413,
        )


def range_faults(body: dict[str, Any]) -> Iterator[str]:
    """Say which numbers are out of their ranges."""
    for name, (low, high) in RANGES.items():
        value = body.get(name, low)
        kinds = int if name in _WHOLE_NUMBERS else int | float
        if not isinstance(value, kinds) or isinstance(value, bool):
            kind = "integer" if name in _WHOLE_NUMBERS else "number"
            yield f"Type mismatch of '/{name}', '{_kind(value)}' not in '{kind}'"
        elif value < low:
            yield f"'/{name}' must be >= {low}"
        elif value > high:
            yield f"'/{name}' must be <= {high}"


def misfit(faults: list[str], matches: int = 0) -> CloudflareError:
    """Make the usual complaint."""
    told = f"oneOf at '/' not met, {matches} matches"
    return CloudflareError(5006, f"AiError: Bad input: Error: {told}: {', '.join(faults)}".removesuffix(": "))


def _prompt_faults(body: dict[str, Any]) -> Iterator[str]:
    if "prompt" not in body:
        yield "required properties at '/' are 'prompt'"
        return
    if not isinstance(body["prompt"], str):
        yield f"Type mismatch of '/prompt', '{_kind(body['prompt'])}' not in 'string'"
    elif not 1 <= len(body["prompt"]) <= _MOST_CHARACTERS:
        yield f"Length of '/prompt' must be >= 1 and <= {_MOST_CHARACTERS}"
    yield from _shared_faults(body, _OF_PROMPTS)


def _message_faults(body: dict[str, Any]) -> Iterator[str]:
    if "messages" not in body:
        yield "required properties at '/' are 'messages'"
        return
    messages = body["messages"]
    if not isinstance(messages, list) or not messages:
        yield f"Type mismatch of '/messages', '{_kind(messages)}' not in 'array'"
        return
    for position, message in enumerate(messages):
        place = f"/messages/{position}"
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            yield f"required properties at '{place}' are 'role,content'"
        elif not isinstance(message["content"], str):
            yield f"Type mismatch of '{place}/content', '{_kind(message['content'])}' not in 'string'"
        elif len(message["content"]) > _MOST_CHARACTERS:
            yield f"Length of '{place}/content' must be <= {_MOST_CHARACTERS}"
        elif message["role"] not in _ROLES:
            yield f"'{place}/role' is none of {','.join(_ROLES)}"
    for position, tool in enumerate(body.get("tools", ())):
        yield from _tool_faults(tool, f"/tools/{position}")
    yield from _shared_faults(body, _OF_MESSAGES)


def _tool_faults(tool: Any, place: str) -> Iterator[str]:
    """Check a tool, flat or in the manner of chat completions; the schema wants each parameter described."""
    if isinstance(tool, dict) and "function" in tool:
        if tool.get("type") != "function":
            yield f"required properties at '{place}' are 'type,function'"
        tool, place = tool["function"], f"{place}/function"
    if not isinstance(tool, dict) or not {"name", "description", "parameters"} <= tool.keys():
        yield f"required properties at '{place}' are 'name,description,parameters'"
        return
    parameters = tool["parameters"]
    if not isinstance(parameters, dict) or not {"type", "properties"} <= parameters.keys():
        yield f"required properties at '{place}/parameters' are 'type,properties'"
        return
    for name, parameter in parameters["properties"].items():
        if not isinstance(parameter.get("type"), str) or not isinstance(parameter.get("description"), str):
            yield f"required properties at '{place}/parameters/properties/{name}' are 'type,description'"


def _shared_faults(body: dict[str, Any], known: set[str]) -> Iterator[str]:
    for name in body:
        if name not in known:
            yield f"Unknown property '/{name}'"
    if not isinstance(body.get("stream", False), bool):
        yield f"Type mismatch of '/stream', '{_kind(body['stream'])}' not in 'boolean'"
    image = body.get("image", "")
    if not isinstance(image, str | list):
        yield f"Type mismatch of '/image', '{_kind(image)}' not in 'array,string'"
    elif isinstance(image, list) and not all(type(value) is int and 0 <= value <= 255 for value in image):
        yield "Type mismatch of '/image', items are numbers from 0 to 255"
    yield from range_faults(body)


def _check_image(image: str | list[int]) -> None:
    try:
        if isinstance(image, list):
            content = bytes(image)
        elif _READ_AS_IMAGE.match(image):
            content = read_data_url(image, WITH_GIF)
        else:
            raise CloudflareError(5004, "AiError: Invalid data for image - reason expected `;base64,`")
        width, height = opened(content).size
    except WrongImageError as wrong:
        raise CloudflareError(8005, f"AiError: Invalid image: {wrong}") from None
    if min(width, height) < _LEAST_PIXELS:
        raise CloudflareError(
            8005, f"AiError: image dimensions must be at least {_LEAST_PIXELS}px (got {width}x{height})"
        )


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "number")
