"""Refuses what a provider can't do, by name: in the request before its images are fetched, then in its images."""

from collections.abc import Sequence

from llama_vision.adaptation.prompted_tools import (
    can_emulate_tools,
    emulates_parallel_tool_calls,
    supports_tools,
)
from llama_vision.core.backend import AttachErrorContext
from llama_vision.core.call_options import SAMPLING_OPTIONS
from llama_vision.core.errors import ConfigurationError, UnsupportedInputError
from llama_vision.core.messages import Image, ToolCall, ToolResult
from llama_vision.core.request import ChatRequest
from llama_vision.dialects.dialect import fill_in_model
from llama_vision.images.dimensions import image_dimensions
from llama_vision.images.encode import base64_length
from llama_vision.providers.provider import Provider

_SAMPLING = tuple(sorted(SAMPLING_OPTIONS))
_SCALE_DOWN = "Scale it down: the model sees at most 1120 x 1120 pixels."


def validate_request(provider: Provider, request: ChatRequest) -> None:
    """Validate all but the images of a request against the provider's record, before anything is fetched.

    Raises:
        UnsupportedInputError: The first thing found that the provider does not accept, with what would work.
        ConfigurationError: There are no messages, or no model.
    """
    with AttachErrorContext(provider.name, request.model):
        _check_messages(request)
        if provider.dialect is not None:
            fill_in_model(
                provider.dialect.path, request.model
            )  # raises where the name can't be in an address
        _check_tools(provider, request)
        _check_response_format(provider, request)
        _check_parameters(provider, request)
        _check_max_tokens(provider, request)
        _check_image_support(provider, request)
        _check_extra_body(provider, request)


def _check_messages(request: ChatRequest) -> None:
    if not request.messages:
        raise ConfigurationError("There are no messages to send.")
    if not request.model.strip():  # AIGateway chooses, and bills, another model where none is named
        raise ConfigurationError("There is no model to ask: its name is empty.")


def _check_tools(provider: Provider, request: ChatRequest) -> None:
    emulated = can_emulate_tools(provider, request)
    if not emulated and not supports_tools(provider, request):
        _reject_tools(provider, request)
    choice = request.tool_choice
    if choice is None or choice.mode in ("auto", "none"):
        return
    names = [tool.name for tool in request.tools]
    if not names:
        raise UnsupportedInputError(f"tool_choice is {choice.mode!r}, but no tools are offered.")
    if choice.mode == "named" and choice.name not in names:
        raise UnsupportedInputError(
            f"tool_choice names {choice.name!r}, but the tools are: {', '.join(names)}."
        )
    if not emulated and not provider.supports("tool_choice"):
        raise UnsupportedInputError(
            f"{provider.title} can't make the model call a tool: leave tool_choice out, and it calls one if it likes."
            f"{_alternative(provider, 'tells it to in words')}"
        )


def _reject_tools(provider: Provider, request: ChatRequest) -> None:
    """Refuse tools, and conversations that hold their calls and results."""
    alternative = _alternative(provider, "puts them into words")
    if request.tools:
        raise UnsupportedInputError(
            f"{provider.title} takes no tools with this model. Ask without them, or use another provider.{alternative}"
        )
    if any(isinstance(part, ToolCall | ToolResult) for message in request.messages for part in message.parts):
        raise UnsupportedInputError(
            f"{provider.title} takes no tools with this model, nor a conversation that holds their calls or results. "
            f"Tell it in words what the tool said, or use another provider.{alternative}"
        )


def _alternative(provider: Provider, effect: str) -> str:
    """Say what the option would do, where it exists."""
    return f" text_tool_calls=True {effect}." if provider.dialect is not None else ""


def _check_response_format(provider: Provider, request: ChatRequest) -> None:
    response_format = request.response_format
    if response_format is None or response_format.type == "text":
        return
    supported = provider.model_info(request.model).response_formats
    if not provider.supports("response_format") or response_format.type not in supported:
        raise UnsupportedInputError(
            f"{provider.title} can't keep this model to response_format {response_format.type!r}. "
            "Ask for JSON in the prompt and check the answer."
        )


def _check_parameters(provider: Provider, request: ChatRequest) -> None:
    if provider.parameters is None:
        return
    values: dict[str, float | None] = {name: getattr(request.sampling, name) for name in _SAMPLING}
    is_sent = request.parallel_tool_calls is not None and not emulates_parallel_tool_calls(provider, request)
    values["parallel_tool_calls"] = 1 if is_sent else None
    values["stop"] = len(request.stop) if request.stop and not provider.client_side_stop else None
    for name, value in values.items():
        if value is None or name == "max_tokens":
            continue
        if name not in provider.parameters:
            anyway = " To send it all the same, use extra_body={...}." if provider.dialect is not None else ""
            raise UnsupportedInputError(f"{provider.title} has no {name}: leave it out.{anyway}")
        limits = provider.parameters[name]
        if value not in limits:
            subject = f"{value:.12g} stop texts are" if name == "stop" else f"{name}={value:.12g} is"
            raise UnsupportedInputError(f"{subject} out of range: {provider.title} takes {limits}.")


def _check_max_tokens(provider: Provider, request: ChatRequest) -> None:
    max_tokens = request.sampling.max_tokens
    limit = provider.model_info(request.model).max_output_tokens
    if max_tokens < 1:
        raise UnsupportedInputError(f"max_tokens={max_tokens} leaves no room for an answer; 1 is the least.")
    if limit is not None and max_tokens > limit:
        raise UnsupportedInputError(
            f"max_tokens={max_tokens} is more than {provider.title} allows ({limit})."
        )


def _check_image_support(provider: Provider, request: ChatRequest) -> None:
    constraints = provider.image_rules
    if constraints.max_count == 0 and request.images():
        raise UnsupportedInputError(
            f"{provider.title} takes no images with this model. {constraints.alternative}"
        )


def _check_extra_body(provider: Provider, request: ChatRequest) -> None:
    if request.extra_body and provider.dialect is None:
        raise UnsupportedInputError("The local model has no extra_body: there is no server it could go to.")


def validate_images(provider: Provider, images: Sequence[Image]) -> None:
    """Validate prepared images.

    Raises:
        UnsupportedInputError: The first image found that the provider does not accept, with what would work.
    """
    for number, image in enumerate(images, start=1):
        _check_image(provider, image, number)
    _check_total_base64(provider, images)


def _check_image(provider: Provider, image: Image, number: int) -> None:
    constraints = provider.image_rules
    if image.data is None:
        if not constraints.accepts_urls:
            raise UnsupportedInputError(
                f"Image {number} is an address ({image.url}), which {provider.title} can't fetch. "
                "Download it and pass its bytes or path."
            )
        return
    if not constraints.decoded_by_backend and image.media_type not in constraints.media_types:
        raise UnsupportedInputError(
            f"Image {number} is {image.media_type}; {provider.title} takes {', '.join(sorted(constraints.media_types))}. "
            "Save it as PNG or JPEG."
        )
    if constraints.max_bytes is not None and len(image.data) > constraints.max_bytes:
        raise UnsupportedInputError(
            f"Image {number} has {len(image.data) / 1e6:.1f} MB; {provider.title} takes {constraints.max_bytes / 1e6:.0f} MB. "
            f"{_SCALE_DOWN}"
        )
    if constraints.max_base64_chars is not None and base64_length(image) >= constraints.max_base64_chars:
        raise UnsupportedInputError(
            f"Image {number} has {base64_length(image)} characters in base64; {provider.title} takes fewer than "
            f"{constraints.max_base64_chars}, which is a file of {constraints.max_base64_chars * 3 / 4e3:.0f} kB. "
            f"Save it as JPEG, or s{_SCALE_DOWN[1:]}"
        )
    _check_sides(provider, image.data, number)


def _check_sides(provider: Provider, data: bytes, number: int) -> None:
    constraints = provider.image_rules
    size = image_dimensions(data)
    if size is None:  # left to the provider
        return
    subject = f"Image {number} is {size[0]} x {size[1]} pixels"
    if min(size) < constraints.min_side:
        raise UnsupportedInputError(
            f"{subject}; {provider.title} takes none with a side of fewer than {constraints.min_side}. Scale it up."
        )
    if constraints.max_side is not None and max(size) > constraints.max_side:
        raise UnsupportedInputError(
            f"{subject}; {provider.title} takes none with a side of more than {constraints.max_side}. {_SCALE_DOWN}"
        )


def _check_total_base64(provider: Provider, images: Sequence[Image]) -> None:
    limit = provider.image_rules.max_total_base64_chars
    lengths = [base64_length(image) for image in images]
    if limit is None or sum(lengths) < limit:
        return
    largest = max(lengths)
    raise UnsupportedInputError(
        f"The images have {sum(lengths) / 1e6:.1f} MB in base64 together, of which image {lengths.index(largest) + 1} has "
        f"{largest / 1e6:.1f} MB; {provider.title} takes less than {limit / 1e6:.0f} MB in one request. "
        "Scale them down, as the model sees at most 1120 x 1120 pixels of each, or ask about fewer at once."
    )
