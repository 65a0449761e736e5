"""The sources of an answer: pages and images that a query engine or chain found, by duck typing."""

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from llama_vision.captions import citation
from llama_vision.core.errors import ImageError
from llama_vision.core.json_types import as_mapping
from llama_vision.images import image_from_any
from llama_vision.images.thumbnail import thumbnail_url


@dataclass(frozen=True, slots=True)
class Source:
    """A source of an answer.

    Attributes:
        citation: Such as `report.pdf, p. 7`.
        thumbnail: A data URL, or None of a text, or of an image that is no longer there.
    """

    citation: str
    thumbnail: str | None = None


def find_sources(answer: Any) -> tuple[Source, ...]:
    """Find the sources of a response of LlamaIndex's engines, or of the dict that a retrieval chain of LangChain gives."""
    if context := as_mapping(answer).get("context"):
        found: Iterable[Any] = context
    else:
        found = [scored.node for scored in getattr(answer, "source_nodes", None) or ()]
    return tuple(dict.fromkeys(_source(one) for one in found if hasattr(one, "metadata")))


def _source(found: Any) -> Source:
    metadata = as_mapping(found.metadata)
    path = metadata.get("source") or metadata.get("file_path")
    own_id = getattr(found, "node_id", None) or getattr(found, "id", None)
    name = metadata.get("file_name") or (PurePath(str(path)).name if path else own_id or "source")
    return Source(
        citation(str(name), metadata.get("page_label")), metadata.get("thumbnail") or _thumbnail(found)
    )


def _thumbnail(node: Any) -> str | None:
    """Make a thumbnail of an image node of another origin; what can't be read has none."""
    image, path = getattr(node, "image", None), getattr(node, "image_path", None)
    try:
        if isinstance(image, str) and image:
            return thumbnail_url(image_from_any(base64.b64decode(image)))
        return thumbnail_url(image_from_any(path)) if isinstance(path, str) and path else None
    except (ImageError, binascii.Error):
        return None
