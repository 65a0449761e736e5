"""The options of a call, which both frameworks name as OpenAI does, and the request they make."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.json_types import as_mapping
from llama_vision.core.messages import Message
from llama_vision.core.request import ChatRequest, ResponseFormat, SamplingParams, Tool, ToolChoice

SAMPLING_OPTIONS = frozenset(field.name for field in fields(SamplingParams))

_REQUEST_FIELDS = {field.name for field in fields(ChatRequest)}
CALL_OPTIONS = SAMPLING_OPTIONS | _REQUEST_FIELDS - {"model", "messages", "sampling"}

MODEL_OPTIONS = SAMPLING_OPTIONS | {"stop", "stream_usage", "extra_body"}
"""Options of a call that a model may have for all its calls."""

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "max_tokens": ("max_completion_tokens", "max_new_tokens", "num_predict", "num_output"),
    "timeout": ("request_timeout", "read_timeout"),
    "stop": ("stop_sequences",),
    "model": ("model_name", "model_id"),
    "repetition_penalty": ("repeat_penalty",),
    "api_key": ("openai_api_key",),
    "base_url": ("api_base", "openai_api_base"),
    "api_base": ("base_url", "openai_api_base"),
    "http_async_client": ("async_http_client",),
}
"""Names of other classes for what is the same here: in extra_body they would go out beside ours."""

_NAMES_HERE = {
    **{name: ours for ours, names in SYNONYMS.items() for name in names},
    **dict.fromkeys(("default_headers", "headers"), "extra_headers"),
}

_MODEL_FIELDS = frozenset(
    {
        *("provider", "api_key", "base_url", "api_base", "account_id", "accept_license"),
        *("http_client", "http_async_client", "local_settings", "streaming"),
    }
)

_REQUIRED = ToolChoice("required")
_MODES = {"auto": ToolChoice("auto"), "none": ToolChoice("none"), "any": _REQUIRED, "required": _REQUIRED}


def build_request(model: str, messages: Sequence[Message], options: Mapping[str, Any]) -> ChatRequest:
    """Build a request from the options that are set; None counts as not set.

    Raises:
        UnsupportedInputError: An option or its value is unknown; the text names it.
    """
    if not options.keys() <= CALL_OPTIONS:
        unknown = sorted(options.keys() - CALL_OPTIONS)
        raise UnsupportedInputError(f"There is no option {', '.join(unknown)}. {_hint(unknown[0])}")
    sampling = {name: value for name in SAMPLING_OPTIONS if (value := options.get(name)) is not None}
    stop: Any = options.get("stop")
    return ChatRequest(
        model=model,
        messages=tuple(messages),
        tools=tuple(parse_tool(tool) for tool in options.get("tools") or ()),
        tool_choice=parse_tool_choice(options.get("tool_choice")),
        parallel_tool_calls=options.get("parallel_tool_calls"),
        response_format=parse_response_format(options.get("response_format")),
        sampling=SamplingParams(**sampling),
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        stream_usage=options.get("stream_usage") is not False,
        extra_body=options.get("extra_body") or {},
        text_tool_calls=options.get("text_tool_calls") is not False,
    )


def _hint(name: str) -> str:
    here = _NAMES_HERE.get(name, name)
    if here in _MODEL_FIELDS:
        return "It is set on the model and not on a call."
    if here != name:
        return f"Here it is {here}."
    return f"To send a field of the provider's own, use extra_body={{{name!r}: ...}}."


def parse_tool(spec: Mapping[str, Any]) -> Tool:
    """Parse `{"type": "function", "function": {"name", "description", "parameters"}}`, or the function alone.

    Raises:
        UnsupportedInputError: It is no function, such as a company's built-in tool; the text names it.
    """
    function = as_mapping(spec.get("function", spec))
    if spec.get("type", "function") != "function" or not isinstance(function.get("name"), str):
        raise unsupported_tool(spec)
    return Tool(
        name=function["name"],
        description=function.get("description") or "",
        parameters=function.get("parameters") or {"type": "object", "properties": {}},
        strict=function.get("strict"),
    )


def unsupported_tool(spec: Mapping[str, Any]) -> UnsupportedInputError:
    """Make the error for a tool that is no function."""
    return UnsupportedInputError(
        f"The tool {spec.get('type') or ', '.join(spec)!r} is no function with a name. Another company's built-in tools "
        'run on its servers only: offer a function of your own, {"type": "function", "function": {"name": ..., '
        '"parameters": ...}}, that does the same.'
    )


def parse_tool_choice(choice: object) -> ToolChoice | None:
    """Parse `"auto"`, `"none"`, `"any"`, `"required"`, True, a tool's name, or OpenAI's dictionary.

    None and False leave the choice to the provider.

    Raises:
        UnsupportedInputError: It is none of these.
    """
    if choice is None or choice is False:
        return None
    if choice is True:
        return _REQUIRED
    if isinstance(choice, str):
        return _MODES.get(choice) or ToolChoice("named", choice)
    spec = as_mapping(choice)
    name = as_mapping(spec.get("function", spec)).get("name")
    if isinstance(name, str):
        return ToolChoice("named", name)
    if spec.get("type") in _MODES:
        return _MODES[spec["type"]]
    raise UnsupportedInputError(
        f"tool_choice={choice!r} is not known. Use 'auto', 'none', 'any', a tool's name, "
        'or {"type": "function", "function": {"name": ...}}.'
    )


def parse_response_format(spec: Mapping[str, Any] | None) -> ResponseFormat | None:
    """Parse OpenAI's `response_format`.

    Raises:
        UnsupportedInputError: It is of another type.
    """
    if spec is None:
        return None
    kind = spec.get("type")
    if kind in ("text", "json_object"):
        return ResponseFormat(kind)
    details = as_mapping(spec.get("json_schema"))
    if kind == "json_schema" and "schema" in details:
        return ResponseFormat(
            "json_schema",
            name=details.get("name") or "answer",
            schema=as_mapping(details["schema"]),
            strict=details.get("strict"),
        )
    raise UnsupportedInputError(
        f"response_format={spec!r} is not known. Its type is text, json_object, or json_schema with "
        '{"json_schema": {"name": ..., "schema": ...}}.'
    )
