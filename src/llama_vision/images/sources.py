"""Makes an `Image` from a path, bytes, a file, a URL, base64 text, a PIL image or an array."""

import base64
import binascii
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import unquote_to_bytes

from llama_vision.core.errors import ImageError
from llama_vision.core.messages import Image
from llama_vision.images.media_type import sniff_media_type

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import PIL.Image

ImageSource: TypeAlias = "Image | str | Path | bytes | bytearray | memoryview | IO[bytes] | PIL.Image.Image | npt.NDArray[np.uint8]"
"""What `image_from_any` accepts: a path, encoded bytes, an open file, a data URL, an http(s) URL, a PIL image, or a numpy
array (height x width, or height x width x 3 or 4, of bytes)."""

_DATA_URL = re.compile(r"data:([^,;]*)((?:;[^,;]*)*),", re.IGNORECASE)
_PNG_MODES = {"1", "L", "LA", "I;16", "P", "RGB", "RGBA"}
_ALPHA_MODES = {"La": "LA", "PA": "RGBA", "RGBa": "RGBA"}
_MAX_QUOTED = 200  # characters: a whole path, but only the beginning of base64 passed in its place


def image_from_any(  # noqa: PLR0911 - one return for each type
    source: ImageSource, *, detail: str | None = None
) -> Image:
    """Make an image from any supported source.

    A string that is no http(s) or data URL is a path, and read: never pass untrusted text. Use `image_from_url` for
    URLs inside messages.

    Args:
        source: The image.
        detail: `low`, `high` or `auto`, for providers that support it.

    Returns:
        The image, with the media type of its signature.

    Raises:
        ImageError: It can't be read, or is not an image.
    """
    if isinstance(source, Image):
        return source if detail is None else replace(source, detail=detail)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return image_from_bytes(bytes(source), detail=detail)
    if isinstance(source, Path):
        return _from_path(source, detail)
    if isinstance(source, str):
        if source.lower().startswith(("http://", "https://", "data:")):
            return image_from_url(source, detail=detail)
        return _from_path(Path(source), detail)
    if hasattr(source, "read"):
        return image_from_bytes(read_file(cast("IO[bytes]", source)), detail=detail)
    if hasattr(source, "save") and hasattr(source, "mode"):
        return image_from_bytes(_encode_png(cast("PIL.Image.Image", source)), detail=detail)
    if hasattr(source, "__array_interface__"):
        return image_from_bytes(_encode_png(_from_array(source)), detail=detail)
    raise ImageError(
        f"A {type(source).__name__} is not an image. Give a path, bytes, an open file, a URL, a PIL image or an array."
    )


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
        text: Standard or URL-safe base64, with or without line breaks and padding.
        detail: `low`, `high` or `auto`, for providers that support it.

    Returns:
        The image; its media type is that of its signature, as labels are often wrong.

    Raises:
        ImageError: It is not base64, or not an image.
    """
    return image_from_bytes(bytes_from_base64(text), detail=detail)


def bytes_from_base64(text: str | bytes) -> bytes:
    """Decode base64 text: standard or URL-safe, with or without line breaks and padding.

    Raises:
        ImageError: It is not base64.
    """
    encoded = b"".join((text.encode("ascii", "replace") if isinstance(text, str) else text).split())
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
    url = url.strip()
    if url.lower().startswith(("http://", "https://")):
        return Image(url=url, detail=detail)
    if not (match := _DATA_URL.match(url)):
        raise ImageError(
            f"An image's address has to be an http(s) or data URL, and this is {_truncate(url)!r}. "
            "Files are read only where a path is passed as such."
        )
    return image_from_bytes(_data_url_bytes(url, match), detail=detail)


def bytes_from_data_url(url: str) -> bytes | None:
    """Decode a data URL; None of any other URL.

    Raises:
        ImageError: Its base64 text can't be read.
    """
    match = _DATA_URL.match(url.strip())
    return None if match is None else _data_url_bytes(url.strip(), match)


def _data_url_bytes(url: str, match: re.Match[str]) -> bytes:
    content = unquote_to_bytes(url[match.end() :].encode(errors="replace"))
    return bytes_from_base64(content) if match[2].lower().endswith(";base64") else content


def _from_path(path: Path, detail: str | None) -> Image:
    data = read_path(path)
    try:
        return image_from_bytes(data, detail=detail)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def read_path(path: Path) -> bytes:
    """Read a file; `~` is the home directory.

    Raises:
        ImageError: It can't be read.
    """
    try:
        return path.expanduser().read_bytes()
    except (
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # RuntimeError: the home directory of an unknown user
        raise ImageError(f"The image {_truncate(str(path))!r} can't be read: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def read_file(file: IO[bytes]) -> bytes:
    """Read an open file, from its beginning where it is seekable, so that it may be passed twice.

    Raises:
        ImageError: It is open for text, or can't be read.
    """
    if isinstance(file, io.TextIOBase):
        raise ImageError("The file is open for text; open it with mode 'rb'.")
    try:
        if file.seekable():
            file.seek(0)
        data: Any = file.read()
    except (OSError, ValueError) as error:  # ValueError: it is closed
        raise ImageError(f"The open file can't be read: {_reason(error)}.") from error
    if not isinstance(data, bytes):
        raise ImageError(f"The open file gives {type(data).__name__}, not bytes; open it with mode 'rb'.")
    return data


def _from_array(array: Any) -> "PIL.Image.Image":
    """Make a PIL image from uint8 or bool (height, width), (height, width, 3) or (height, width, 4)."""
    import PIL.Image  # noqa: PLC0415 - loaded late

    dtype, shape = str(array.dtype), tuple(array.shape)
    if dtype not in ("uint8", "bool") or shape[2:] not in ((), (3,), (4,)) or shape[1:] == ():
        raise ImageError(
            f"An array of {dtype} with shape {shape} is not an image: it needs uint8 values (0 to 255), as "
            "height x width, or height x width x 3 (RGB) or 4 (RGBA). Of values from 0 to 1: (array * 255).astype('uint8')."
        )
    return PIL.Image.fromarray(array)


def _encode_png(image: "PIL.Image.Image") -> bytes:
    buffer = io.BytesIO()
    try:
        if image.mode not in _PNG_MODES:
            image = image.convert(_ALPHA_MODES.get(image.mode, "RGB"))
        image.save(buffer, format="PNG", compress_level=1)  # fast: it is decoded again at once
    # Its file is truncated or closed, or it has no pixels (a SystemError of older Pillow versions).
    except (OSError, ValueError, SystemError) as error:
        raise ImageError(f"The PIL image ({image.mode}, {image.size}) can't be used: {error}.") from error
    return buffer.getvalue()


def _truncate(text: str) -> str:
    return text if len(text) <= _MAX_QUOTED else text[:_MAX_QUOTED] + "..."
