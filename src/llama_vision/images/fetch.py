"""Guarded download of images, for providers that need bytes.

An address often comes from someone else: the writer of a message, or a model. It must not lead to this machine, its
network or a cloud's metadata, and it must not bring more than an image. What is checked is in `download`, which loads
httpx and so is imported only when it is needed.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from llama_vision.core.errors import ImageError
from llama_vision.core.messages import Image
from llama_vision.images.media_type import sniff_media_type

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Finds the addresses of a host name and port."""

_SHOWN = 200
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_HOST = re.compile(r"[^@:\[]*(:[0-9]*)?|\[[^@]*\](:[0-9]*)?")  # without credentials


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """What may be fetched, and how much of it.

    Attributes:
        allowed_hosts: Where not empty, only these hosts are asked, and they may be private: names in lower case and
            as they are looked up (`xn--...`), or addresses. Redirects have to stay among them.
        private_networks: Whether addresses may be asked that are not public, such as this machine's.
        max_bytes: The most an image may have, after decompression.
        timeout_s: Seconds for everything together, from the first look-up to the last byte.
        max_redirects: How many redirects are followed.

    """

    allowed_hosts: frozenset[str] = frozenset()
    private_networks: bool = False
    max_bytes: int = 20_000_000
    timeout_s: float = 15.0
    max_redirects: int = 3


_DEFAULTS = FetchPolicy()


def fetch_image(image: Image, options: FetchPolicy = _DEFAULTS, *, resolve: Resolve | None = None) -> Image:
    """Download an image that is given by its address.

    Args:
        image: The image. One that has its bytes is returned as it is.
        options: What may be fetched.
        resolve: Finds a name's addresses in place of the system; for tests.

    Returns:
        The image with its bytes, and with the media type that they show; `detail` is kept.

    Raises:
        ImageError: The address is refused, there is no answer, or it is not an image. The text names the address
            without its query, which often is a secret, and says what to do.

    """
    if (url := image.url) is None:
        return image
    from llama_vision.images import download  # noqa: PLC0415 - loads httpx and asyncio

    data = download.run_in_thread(lambda: download.download(url, options, resolve))
    return _with_media_type(image, url, data)


async def afetch(image: Image, options: FetchPolicy = _DEFAULTS, *, resolve: Resolve | None = None) -> Image:
    """As `fetch_image`, for the running event loop.

    Args:
        image: The image. One that has its bytes is returned as it is.
        options: What may be fetched.
        resolve: Finds a name's addresses in place of the system; for tests.

    Returns:
        The image with its bytes, and with the media type that they show; `detail` is kept.

    Raises:
        ImageError: As for `fetch_image`.

    """
    if (url := image.url) is None:
        return image
    from llama_vision.images import download  # noqa: PLC0415 - loads httpx and asyncio

    return _with_media_type(image, url, await download.download(url, options, resolve))


def redact_url(url: str) -> str:
    """Shorten an address for a text, without what may be secret in it.

    Args:
        url: Any text, even where it can't be read as a URL.

    Returns:
        The address in quotes, without credentials, query and fragment.

    """
    scheme = match[0] if (match := _SCHEME.match(url)) else ""
    rest = url[len(scheme) :]
    bare = re.split(r"[?#]", rest, maxsplit=1)[0]
    if "@" in rest and not _HOST.fullmatch(bare.partition("/")[0]):
        bare = bare.rpartition("@")[2] if "@" in bare else "..."  # a password may hold any of these marks
    bare = scheme + bare
    return repr(bare if len(bare) <= _SHOWN else bare[:_SHOWN] + "...")


def _with_media_type(image: Image, url: str, data: bytes) -> Image:
    """Look at the bytes: the label they came with is often wrong."""
    try:
        return Image(data=data, media_type=sniff_media_type(data), detail=image.detail)
    except ImageError as error:
        raise ImageError(f"{redact_url(url)}: {error}") from error
