"""Media types by file signature: names and labels are often wrong."""

import codecs
import re

from llama_vision.core.errors import ImageError

_HEAD_BYTES = 4096
_MAX_QUOTED = 100  # characters
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"II+\x00", "image/tiff"),  # BigTIFF
    (b"MM\x00+", "image/tiff"),
)
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
# ISO/IEC 23008-12, annex B; `mif1` and `msf1` only name the container, whatever the codec is.
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_CONTAINER_BRANDS = frozenset({b"mif1", b"mif2", b"msf1", b"miaf"})
_OTHER_FORMATS = (
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x00\x00\x01\x00", "an icon (ICO)"),
    (b"8BPS", "a Photoshop document"),
    (b"qoif", "QOI"),
    (b"DDS ", "DDS"),
    *((b"P%d" % number, "PNM (PBM, PGM, PPM)") for number in range(1, 8)),
)


def sniff_media_type(data: bytes, *, quote: bool = True) -> str:
    """Detect an image's media type from its whole file or its beginning.

    Args:
        data: The file, or at least its first 4096 bytes.
        quote: Whether an error may quote the first bytes. Not of a local file: it may hold a secret, and whoever chose
            its path may not be the one who may read it.

    Raises:
        ImageError: It is empty, or no known image format. The text says what it looks like.
    """
    for signature, media_type in _SIGNATURES:
        if data.startswith(signature):
            return media_type
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:8] == b"ftyp" and (found := _isobmff_media_type(data[:_HEAD_BYTES])):
        return found
    raise ImageError(
        f"This is not an image: {_looks_like(data[:_HEAD_BYTES], quote=quote)}. Give a PNG, JPEG, WebP or GIF."
    )


def _isobmff_media_type(head: bytes) -> str | None:
    """Tell AVIF from HEIC: by any of the brands, and where they name only the container, by the type of its items."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))}
    if brands & _AVIF_BRANDS:
        return "image/avif"
    if brands & _HEIF_BRANDS:
        return "image/heic"
    if brands & _CONTAINER_BRANDS:
        return "image/avif" if b"av01" in head else "image/heic"
    return None


def _looks_like(head: bytes, *, quote: bool) -> str:  # noqa: PLR0911 - one return for each kind
    for signature, name in _OTHER_FORMATS:
        if head.startswith(signature) and not (signature[:1] == b"P" and not head[2:3].isspace()):
            return f"it is {name}, which is not read here: save it as PNG, or open it with Pillow and pass that image"
    text = _text(head).strip()
    begin = text.lower()
    if not head.strip():
        return "it is empty"
    if begin.startswith("%pdf"):
        return "it looks like a PDF: pass it as a document, or its pages as images (llama_vision.pages)"
    if "<svg" in begin and begin.startswith("<"):
        return "it looks like SVG, a drawing in words, which has to be rendered first"
    words = _first_words(text) if quote else ""
    if begin.startswith(("<!doctype", "<html", "<head", "<body", "<title")) or re.match(
        r"<[^<]*<html", begin
    ):
        return f"it looks like a web page, perhaps an error page in place of the image{words}"
    if begin.startswith("<"):
        return f"it looks like XML, perhaps an error of the server in place of the image{words}"
    if not quote:
        return "its first bytes are those of no image format"
    return f"it begins with {bytes(head[:8])!r}"


def _text(head: bytes) -> str:
    """Decode what may be text, by its byte order mark."""
    for mark, encoding in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        if head.startswith(mark):
            return head[2:].decode(encoding, "replace")
    return head.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace")


def _first_words(markup: str) -> str:
    """Quote the beginning of what a reader of the markup would see."""
    visible = re.sub(r"(?s)<(style|script)\b.*?(</\1>|$)", " ", markup)
    words = " ".join(re.sub(r"<[^<>]*(>|$)", " ", visible).split())
    return f": {words[:_MAX_QUOTED]!r}" if words else ""
