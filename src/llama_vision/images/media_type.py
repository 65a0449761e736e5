"""Media types by file signature: names and labels are often wrong."""

from llama_vision.core.errors import ImageError

_HEAD_BYTES = 512
_FTYP_BRANDS = {
    b"avif": "image/avif",
    b"avis": "image/avif",
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"mif1": "image/heic",
}


def sniff_media_type(data: bytes) -> str:  # noqa: PLR0911 - one return for each type
    """Detect an image's media type from its whole file or its beginning.

    Raises:
        ImageError: It is empty, or no known image format. The text says what it looks like.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data.startswith(b"BM"):
        return "image/bmp"
    if data.startswith((b"II*\x00", b"MM\x00*")):
        return "image/tiff"
    if data[4:8] == b"ftyp" and (brand := data[8:12]) in _FTYP_BRANDS:
        return _FTYP_BRANDS[brand]
    raise ImageError(f"This is not an image: {_looks_like(data)}. Give a PNG, JPEG, WebP or GIF.")


def _looks_like(data: bytes) -> str:
    head = data[:_HEAD_BYTES].lstrip().lower()
    if not head:
        return "it is empty"
    if head.startswith((b"<svg", b"<?xml")):
        return "it looks like SVG, a drawing in words, which has to be rendered first"
    if head.startswith((b"<!doctype", b"<html")):
        return "it looks like a web page, perhaps an error page in place of the image"
    if head.startswith(b"%pdf"):
        return "it looks like a PDF: pass it as a document, or its pages as images (llama_vision.pages)"
    return f"it begins with {bytes(data[:8])!r}"
