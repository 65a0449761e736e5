"""Download of images for providers that need their bytes, guarded against SSRF.

A URL often comes from someone else: the author of a message, or a model. It must not lead to this machine, its
network or a cloud's metadata service. The checks are in `download`, which is imported late because it loads httpx.
"""

from collections.abc import Sequence

from llama_vision.core.errors import ImageError
from llama_vision.core.messages import Image
from llama_vision.images.fetch_policy import FetchPolicy, Resolve, redact_url
from llama_vision.images.media_type import sniff_media_type

_DEFAULT_POLICY = FetchPolicy()
_MAX_CONCURRENT = 16  # downloads of one request


def fetch_image(
    image: Image, policy: FetchPolicy = _DEFAULT_POLICY, *, resolve: Resolve | None = None
) -> Image:
    """Download an image that is given by its URL; one that has its bytes is returned as it is.

    Raises:
        ImageError: The URL is refused, the download fails, or it is not an image. The text names the URL without its
            query, which often is a secret, and says what to do.
    """
    if image.url is None:
        return image
    from llama_vision.images import download  # noqa: PLC0415 - loads httpx and asyncio

    return download.run_in_thread(lambda: _fetch(image, policy, resolve))


def fetch_images(images: Sequence[Image], policy: FetchPolicy) -> Sequence[Image]:
    """Download the images that are given by their URLs, all at the same time.

    Raises:
        ImageError: As `fetch_image`, of the first that fails; the text begins with the image's number, such as `Image 2`.
    """
    if all(image.url is None for image in images):
        return images
    from llama_vision.images import download  # noqa: PLC0415 - loads httpx and asyncio

    return download.run_in_thread(lambda: afetch_images(images, policy))


async def afetch_images(images: Sequence[Image], policy: FetchPolicy) -> Sequence[Image]:
    """As `fetch_images`, on the running event loop and in no thread of its executor."""
    if all(image.url is None for image in images):
        return images
    import asyncio  # noqa: PLC0415 - loaded late

    slots = asyncio.Semaphore(_MAX_CONCURRENT)

    async def fetch(number: int, image: Image) -> Image:
        try:
            async with slots:
                return await _fetch(image, policy)
        except ImageError as error:
            raise ImageError.numbered(number, error) from error

    tasks = [asyncio.ensure_future(fetch(number, image)) for number, image in enumerate(images, start=1)]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _fetch(image: Image, policy: FetchPolicy, resolve: Resolve | None = None) -> Image:
    if (url := image.url) is None:
        return image
    from llama_vision.images import download  # noqa: PLC0415 - loads httpx and asyncio

    data = await download.download(url, policy, resolve)
    try:
        return Image(data=data, media_type=sniff_media_type(data), detail=image.detail)
    except ImageError as error:
        raise ImageError(f"{redact_url(url)}: {error}") from error
