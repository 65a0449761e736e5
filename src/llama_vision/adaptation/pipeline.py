"""The one pipeline that makes a request fit for its provider, used by the HTTP and the local backend.

In this order: validate the request, resolve key and account, prepare the images, validate them, render prompted tools,
order the messages, take out stop strings. Whatever can be refused without the images is refused before any of them is
fetched, read or decoded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from llama_vision.adaptation.documents import (
    CHOOSE_PAGES,
    has_documents,
    load_documents,
    outline_documents,
)
from llama_vision.adaptation.images import (
    aload_images,
    exceeds_image_limit,
    image_locations,
    limit_images,
    load_images,
    replace_images,
    warn_of_tools_beside_images,
)
from llama_vision.adaptation.message_order import reorder_messages
from llama_vision.adaptation.prompted_tools import emulate_tools
from llama_vision.adaptation.validate import validate_images, validate_request
from llama_vision.core.messages import Image
from llama_vision.core.request import ChatRequest, Tool
from llama_vision.images.prepare import run_in_pool
from llama_vision.images.settings import ImageSettings
from llama_vision.providers.credentials import resolve_account_id, resolve_api_key
from llama_vision.providers.provider import Provider

_PLACEHOLDER = Image(data=b"", media_type="image/png")


@dataclass(frozen=True, slots=True)
class AdaptedRequest:
    """A request that is fit for its provider.

    Attributes:
        request: What the dialect, or the local model's chat template, encodes.
        text_parsed_tools: The tools whose calls are looked for in the text of the reply.
        stop_strings: Where the backend has to end the reply itself, as the provider can't.
        image_locations: Of each image of the request where it stands, for error texts.
        has_documents: Whether the user's request has documents.
        api_key: The key; None where the provider needs none.
        account_id: The account; None where the provider's URLs contain none.
    """

    request: ChatRequest
    text_parsed_tools: tuple[Tool, ...] = ()
    stop_strings: tuple[str, ...] = ()
    image_locations: tuple[str, ...] = ()
    has_documents: bool = False
    api_key: str | None = field(default=None, repr=False)
    account_id: str | None = field(default=None, repr=False)


def adapt_request(
    provider: Provider,
    request: ChatRequest,
    settings: ImageSettings,
    *,
    api_key: str | None = None,
    account_id: str | None = None,
) -> AdaptedRequest:
    """Make a request fit for its provider.

    Args:
        provider: Whose constraints count.
        request: The user's request; it is not changed.
        settings: How images are prepared.
        api_key: The user's key; None looks into the environment.
        account_id: The user's account; None looks into the environment.

    Returns:
        The adapted request.

    Raises:
        UnsupportedInputError: The provider can't express the request.
        ConfigurationError: The key or the account is missing or malformed, or there is nothing to send.
        ImageError: An image can't be fetched or decoded; the text says which one of which message.
    """
    checked = _check(provider, request, settings, api_key, account_id)
    if checked.has_documents:
        checked = _show_pages(provider, checked, settings)
    images: list[Image] = []
    if checked.image_locations:
        originals, on_sheet = _images_to_load(provider, checked.request)
        images = load_images(provider, originals, checked.image_locations, settings, on_sheet=on_sheet)
    return _finish(provider, checked, images)


async def aadapt_request(
    provider: Provider,
    request: ChatRequest,
    settings: ImageSettings,
    *,
    api_key: str | None = None,
    account_id: str | None = None,
) -> AdaptedRequest:
    """As `adapt_request`; images are fetched on the event loop, and prepared in threads, as decoding would block it."""
    checked = _check(provider, request, settings, api_key, account_id)
    if checked.has_documents:
        checked = await run_in_pool(partial(_show_pages, provider, checked, settings))
    images: list[Image] = []
    if checked.image_locations:
        originals, on_sheet = _images_to_load(provider, checked.request)
        images = await aload_images(provider, originals, checked.image_locations, settings, on_sheet=on_sheet)
    return _finish(provider, checked, images)


def _check(
    provider: Provider,
    request: ChatRequest,
    settings: ImageSettings,
    api_key: str | None,
    account_id: str | None,
) -> AdaptedRequest:
    """Refuse what can be refused without looking at the images and documents."""
    documents = has_documents(request)
    outline = outline_documents(request) if documents else request
    validate_request(provider, outline)
    limited = limit_images(provider, outline, settings)
    checked = AdaptedRequest(
        request if documents else limited,
        # Before they are rendered into the prompt.
        text_parsed_tools=() if provider.parses_text_calls else request.text_parsed_tools,
        stop_strings=request.stop if provider.client_side_stop else (),
        image_locations=tuple(image_locations(limited)),
        has_documents=documents,
        api_key=resolve_api_key(provider, api_key),
        account_id=resolve_account_id(provider, account_id),
    )
    if checked.image_locations:
        _dry_run(provider, limited)
    return checked


def _dry_run(provider: Provider, request: ChatRequest) -> None:
    """Rewrite and encode the request with empty images, so that what these steps refuse is refused now."""
    count = len(request.images())
    if exceeds_image_limit(provider, request):
        outline = replace_images(request, [_PLACEHOLDER], sheet_of=count)
    else:
        outline = replace_images(request, [_PLACEHOLDER] * count)
    rewritten = _rewrite(provider, outline, has_images=True)
    if provider.dialect is not None:
        provider.dialect.encode(rewritten, stream=False)


def _show_pages(provider: Provider, checked: AdaptedRequest, settings: ImageSettings) -> AdaptedRequest:
    """Replace the documents of a request by their pages."""
    lossless = provider.image_rules.decoded_by_backend
    request = load_documents(checked.request, settings, lossless=lossless)
    request = limit_images(provider, request, settings, advice=CHOOSE_PAGES)
    return replace(checked, request=request, image_locations=tuple(image_locations(request)))


def _images_to_load(provider: Provider, request: ChatRequest) -> tuple[Sequence[Image], bool]:
    """Return the images of a request, and whether they go on a contact sheet."""
    warn_of_tools_beside_images(request)
    return request.images(), exceeds_image_limit(provider, request)


def _finish(provider: Provider, checked: AdaptedRequest, images: Sequence[Image]) -> AdaptedRequest:
    request = checked.request
    if checked.image_locations:
        validate_images(provider, images)
        count = len(checked.image_locations)
        request = replace_images(
            request, images, sheet_of=count if exceeds_image_limit(provider, request) else 0
        )
    request = _rewrite(provider, request, has_images=bool(checked.image_locations))
    if checked.stop_strings:
        request = replace(request, stop=())
    return checked if request is checked.request else replace(checked, request=request)


def _rewrite(provider: Provider, request: ChatRequest, *, has_images: bool) -> ChatRequest:
    request = emulate_tools(provider, request)
    return reorder_messages(provider, request) if has_images else request
