"""What a provider can't do is refused here by name, before a byte is sent."""

from llama_vision.core.errors import ConfigurationError, UnsupportedInputError
from llama_vision.core.messages import Image
from llama_vision.core.request import ChatRequest, Sampling
from llama_vision.providers.record import Provider


def check_request(provider: Provider, request: ChatRequest) -> None:
    """Compare a request with what the provider's record documents.

    Args:
        provider: Whose rules.
        request: To be sent.

    Raises:
        UnsupportedInputError: The first thing found that the provider does not take, with what would work.
        ConfigurationError: There is nothing to send.

    """
    try:
        _check_messages(request)
        _check_tools(provider, request)
        _check_limits(provider, request)
        for number, image in enumerate(request.images(), start=1):
            _check_image(provider, image, number)
    except (UnsupportedInputError, ConfigurationError) as error:
        raise error.at(provider.name, request.model) from None


def _check_messages(request: ChatRequest) -> None:
    if not request.messages:
        raise ConfigurationError("There are no messages to send.")


def _check_tools(provider: Provider, request: ChatRequest) -> None:
    if request.tools and not provider.model_info(request.model).tools:
        raise UnsupportedInputError("This model takes no tools at this provider.")
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


def _check_limits(provider: Provider, request: ChatRequest) -> None:
    sampling = request.sampling
    for name, limits in provider.limits.items():
        value: float | None = getattr(sampling, name)
        if value is not None and value not in limits:
            raise UnsupportedInputError(f"{name}={value:g} is out of range: {provider.title} takes {limits}.")
    _check_max_tokens(provider, request.model, sampling)


def _check_max_tokens(provider: Provider, model: str, sampling: Sampling) -> None:
    most = provider.model_info(model).max_output_tokens
    if sampling.max_tokens < 1:
        raise UnsupportedInputError(
            f"max_tokens={sampling.max_tokens} leaves no room for an answer; 1 is the least."
        )
    if most is not None and sampling.max_tokens > most:
        raise UnsupportedInputError(
            f"max_tokens={sampling.max_tokens} is more than {provider.title} allows ({most})."
        )


def _check_image(provider: Provider, image: Image, number: int) -> None:
    rules = provider.image_rules
    if image.data is None:
        if not rules.urls:
            raise UnsupportedInputError(
                f"Image {number} is an address ({image.url}), which {provider.title} can't fetch. "
                "Download it and pass its bytes or path."
            )
        return
    if image.media_type not in rules.media_types:
        raise UnsupportedInputError(
            f"Image {number} is {image.media_type}; {provider.title} takes {', '.join(sorted(rules.media_types))}. "
            "Save it as PNG or JPEG."
        )
    if rules.max_bytes is not None and len(image.data) > rules.max_bytes:
        raise UnsupportedInputError(
            f"Image {number} has {len(image.data) / 1e6:.1f} MB; {provider.title} takes {rules.max_bytes / 1e6:.0f} MB. "
            "Scale it down: the model sees at most 1120 x 1120 pixels."
        )
