"""Download of images for providers that need their bytes, guarded against SSRF.

A URL often comes from someone else: the author of a message, or a model. It must not lead to this machine, its
network or a cloud's metadata service. The checks are in `download`, which is imported late because it loads httpx.
"""

from llama_vision.core.errors import ImageError
from llama_vision.core.messages import Image
from llama_vision.images.fetch_policy import FetchPolicy, Resolve, redact_url
from llama_vision.images.media_type import sniff_media_type

_DEFAULT_POLICY = FetchPolicy()


def fetch_image(
    image: Image, policy: FetchPolicy = _DEFAULT_POLICY, *, resolve: Resolve | None = None
) -> Image:
    """Download an image that is given by its URL; one that has its bytes is returned as it is.

    Raises:
        ImageError: The URL is refused, the download fails, or it is not an image. The text names the URL without its
            query, which often is a secret, and says what to do.
    """
    if (url := image.url) is None:
        return image
    from llama_vision.images import download  # noqa: PLC0415 - loads httpx and asyncio

    data = download.run_in_thread(lambda: download.download(url, policy, resolve))
    try:
        return Image(data=data, media_type=sniff_media_type(data), detail=image.detail)
    except ImageError as error:
        raise ImageError(f"{redact_url(url)}: {error}") from error
