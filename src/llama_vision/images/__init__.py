"""Images: loaded from any source, prepared for a provider, or decoded; and the pages of documents."""

from llama_vision.images.documents import DocumentSource, Page, pages
from llama_vision.images.sources import (
    ImageSource,
    image_from_any,
    image_from_base64,
    image_from_bytes,
    image_from_url,
)

__all__ = [
    "DocumentSource",
    "ImageSource",
    "Page",
    "image_from_any",
    "image_from_base64",
    "image_from_bytes",
    "image_from_url",
    "pages",
]
