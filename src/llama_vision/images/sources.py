"""Makes an `Image` from a path, bytes, a file, a URL, base64 text, a PIL image or an array."""

import base64
import binascii
import io
import os
import re
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import url2pathname

from llama_vision.core.errors import ImageError
from llama_vision.core.messages import Image
from llama_vision.images.media_type import sniff_media_type
from llama_vision.images.pixels import encode_png, image_from_array
from llama_vision.images.read import read_path, read_source, shorten

if TYPE_CHECKING:
    import mmap

    import numpy.typing as npt
    import PIL.Image

ImageSource: TypeAlias = "Image | str | os.PathLike[str] | bytes | bytearray | memoryview | mmap.mmap | IO[bytes] | PIL.Image.Image | npt.NDArray[Any]"
"""What `image_from_any` accepts: a path, encoded bytes, an open file or anything else with `read()`, a data, http(s) or file
URL, a PIL image, a numpy array (height x width, or height x width x 3 or 4, of bytes; height x width also of deep gray
levels) or what numpy makes one of, such as a tensor, and a matplotlib figure."""

_WEB_URL = re.compile(r"https?://", re.IGNORECASE)
_URL_BLANKS = "".join(map(chr, range(0x21)))  # WHATWG URL: C0 controls and space, around a URL
_MAX_SCHEME = 20  # characters, with line breaks
_LINE_BREAKS = str.maketrans("", "", "\t\n\r")
_BASE64_MARK = re.compile(r"; *base64$", re.IGNORECASE)


def image_from_any(  # noqa: PLR0911 - one return for each type
    source: ImageSource, *, detail: str | None = None
) -> Image:
    """Make an image from any supported source.

    A string that is no http(s) or data URL is a path or a file URL, and read: never pass untrusted text. Use
    `image_from_url` for URLs inside messages.

    Args:
        source: The image. A PIL image is turned upright by its EXIF orientation, as its file would be.
        detail: `low`, `high` or `auto`, for providers that support it.

    Returns:
        The image, with the media type of its signature.

    Raises:
        ImageError: It can't be read, or is not an image.
    """
    if isinstance(source, Image):
        return source if detail is None else replace(source, detail=detail)
    if isinstance(source, str):
        return _from_text(source, detail)
    if isinstance(source, os.PathLike):
        return _from_path(os.fsdecode(source), detail)
    if hasattr(source, "save") and hasattr(source, "mode"):
        return image_from_bytes(encode_png(cast("PIL.Image.Image", source)), detail=detail)
    if hasattr(source, "savefig"):
        return image_from_bytes(_draw_figure(source), detail=detail)
    if hasattr(source, "__array__") or hasattr(source, "__array_interface__"):
        return image_from_bytes(encode_png(image_from_array(source)), detail=detail)
    return image_from_bytes(read_source(source), detail=detail)


def _from_text(text: str, detail: str | None) -> Image:
    url = text.strip(_URL_BLANKS)
    if _WEB_URL.match(url) or url[:_MAX_SCHEME].translate(_LINE_BREAKS)[:5].lower() == "data:":
        return image_from_url(url, detail=detail)
    return _from_path(path_of_file_url(url) if url[:7].lower() == "file://" else text, detail)


def image_from_bytes(data: bytes, *, detail: str | None = None) -> Image:
    """Make an image from an encoded file, such as a PNG.

    Args:
        data: The file's bytes.
        detail: `low`, `high` or `auto`, for providers that support it.

    Returns:
        The image, with the media type of its signature.

    Raises:
        ImageError: It is not an image.
    """
    return Image(data=data, media_type=sniff_media_type(data), detail=detail)


def image_from_base64(text: str | bytes, *, detail: str | None = None) -> Image:
    """Make an image from base64 text.

    Args:
        text: Standard or URL-safe base64, with or without line breaks and padding; or a data URL.
        detail: `low`, `high` or `auto`, for providers that support it.

    Returns:
        The image; its media type is that of its signature, as labels are often wrong.

    Raises:
        ImageError: It is not base64, or not an image.
    """
    return image_from_bytes(bytes_from_base64(text), detail=detail)


def bytes_from_base64(text: str | bytes) -> bytes:
    """Decode base64 text: standard or URL-safe, with or without line breaks and padding; or a data URL.

    Raises:
        ImageError: It is not base64.
    """
    encoded = b"".join((text.encode("ascii", "replace") if isinstance(text, str) else text).split())
    encoded = encoded.strip(_URL_BLANKS.encode())
    if encoded[:5].lower() == b"data:" and (data := bytes_from_data_url(encoded.decode("ascii", "replace"))):
        return data
    encoded = encoded.replace(b"-", b"+").replace(b"_", b"/").rstrip(b"=")
    try:
        return base64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"An image's base64 text can't be read: {error}.") from error


def image_from_url(url: str, *, detail: str | None = None) -> Image:
    """Make an image from its URL. Nothing is read from disk, and nothing downloaded.

    Args:
        url: An http(s) URL, which is passed on, or a data URL, which is decoded.
        detail: `low`, `high` or `auto`, for providers that support it.

    Returns:
        The image.

    Raises:
        ImageError: It is neither, or the data URL can't be read.
    """
    address = url.strip(_URL_BLANKS).strip()
    if _WEB_URL.match(address):
        return Image(url=address, detail=detail)
    if (data := bytes_from_data_url(address)) is None:
        raise ImageError(
            f"An image's address has to be an http(s) or data URL, and this is {shorten(url)!r}. "
            "Files are read only where a path is passed as such."
        )
    return image_from_bytes(data, detail=detail)


def bytes_from_data_url(url: str) -> bytes | None:
    """Decode a data URL as browsers do: https://fetch.spec.whatwg.org/#data-url-processor. None of any other URL.

    Raises:
        ImageError: Its base64 text can't be read.
    """
    head, comma, content = url.strip(_URL_BLANKS).translate(_LINE_BREAKS).partition(",")
    if not comma or head[:5].lower() != "data:":
        return None
    data = unquote_to_bytes(content.partition("#")[0].encode(errors="replace"))
    return bytes_from_base64(data) if _BASE64_MARK.search(head.strip()) else data


def path_of_file_url(url: str) -> str:
    """Convert a file URL of this machine to a path.

    Raises:
        ImageError: It names another machine.
    """
    parts = urlsplit(url)
    if parts.netloc.lower() not in ("", "localhost"):
        raise ImageError(
            f"The address {shorten(url)!r} names another machine. Give a path, or an http(s) URL."
        )
    return url2pathname(parts.path)


def _from_path(path: str, detail: str | None) -> Image:
    data = read_path(path)
    try:
        return Image(data=data, media_type=sniff_media_type(data, quote=False), detail=detail)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def _draw_figure(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
