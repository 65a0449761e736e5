"""Images in all of LlamaIndex's types."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias, cast

from llama_index.core.base.llms.types import (
    ChatMessage,
    ContentBlock,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
)
from llama_index.core.schema import BaseNode, ImageDocument, ImageNode, MediaResource, Node, NodeWithScore

from llama_vision.core.errors import ImageError
from llama_vision.core.messages import Document, Image
from llama_vision.images import (
    ImageSource,
    Page,
    image_from_any,
    image_from_base64,
    image_from_bytes,
    image_from_url,
)
from llama_vision.images.documents import display_name, image_or_document
from llama_vision.images.sources import bytes_from_base64

ImageLike: TypeAlias = (
    "ImageBlock | ImageNode | ImageDocument | NodeWithScore | MediaResource | Page | ImageSource"
)
"""An image: LlamaIndex's own types, a `Page`, or a path, bytes, a URL, a PIL image."""

Images: TypeAlias = Iterable["ImageLike | DocumentBlock"]
"""What `image_documents` takes: images, PDFs and TIFFs."""


def to_image(source: ImageLike) -> Image:
    """Convert an image. Its media type comes from its bytes, not from what the source says.

    Raises:
        ImageError: The source holds no image, or one that can't be read.
    """
    match source:
        case ImageBlock():
            return _from_block(source)
        case NodeWithScore():
            return to_image(cast("Any", source.node))
        case BaseNode():
            return _from_node(source)
        case MediaResource():
            return _first_source(source, source.data, source.path, source.url)
        case Page():
            return source.image
        case _:
            return image_from_any(source)


def _from_node(node: BaseNode) -> Image:
    """Read a node's image, or else the file that a loader named in its metadata, as LlamaIndex's own helpers do."""
    if isinstance(node, ImageNode) and (node.image or node.image_path or node.image_url):
        return _first_source(node, node.image, node.image_path, node.image_url)
    resource = node.image_resource if isinstance(node, Node) else None  # an ImageDocument is a Node
    if resource is not None and (resource.data or resource.path or resource.url):
        return to_image(resource)
    file_path = node.metadata.get("file_path")
    is_image = isinstance(node, (ImageNode, ImageDocument)) or "image/" in str(node.metadata.get("file_type"))
    if file_path and is_image:
        return image_from_any(Path(file_path))
    raise ImageError(
        f"The {type(node).__name__} {node.node_id} holds no image: it has no image, path or url, nor a file_path of an "
        "image in its metadata."
    )


def _from_block(block: ImageBlock) -> Image:
    detail = block.detail
    if isinstance(block.image, bytes):
        return _from_stored_bytes(block.image, detail)
    if block.image is not None:
        return image_from_any(cast("Any", block.image), detail=detail)
    if block.path is not None:
        return image_from_any(block.path, detail=detail)
    if block.url is not None:
        return image_from_url(str(block.url), detail=detail)
    raise ImageError("The ImageBlock is empty: it has no image, path or url.")


def _from_stored_bytes(stored: bytes, detail: str | None) -> Image:
    """Read stored bytes: base64 of the file or of a data URL, except short ones that were mistaken for base64 already."""
    try:
        data = bytes_from_base64(stored)
    except ImageError:
        data = stored
    return image_from_bytes(bytes_from_base64(data) if data[:5].lower() == b"data:" else data, detail=detail)


def _first_source(source: object, data: str | bytes | None, path: Any, url: Any) -> Image:
    """Read the first of base64 text, path and URL that is set."""
    if data:
        return image_from_base64(data) if isinstance(data, str) else _from_stored_bytes(data, None)
    if path:
        return image_from_any(Path(path))
    if url:
        return image_from_url(str(url))
    raise ImageError(f"The {type(source).__name__} holds no image: it has no image, path or url.")


def message_blocks(message: ChatMessage) -> list[ContentBlock]:
    """Return the blocks of a message, without repetitions of the legacy `additional_kwargs["images"]`.

    LlamaIndex appends those to the blocks each time it validates the message, and it does so again for each event.
    """
    blocks = list(message.blocks)
    legacy: Any = message.additional_kwargs.get("images")
    count = len(cast("list[object]", legacy)) if isinstance(legacy, list) else 0
    while count and _image_data(blocks[-2 * count : -count]) == _image_data(blocks[-count:]):
        del blocks[-count:]
    return blocks


def _image_data(blocks: list[ContentBlock]) -> list[object]:
    """Return the stored images to compare; any other block equals none."""
    return [
        block.image if isinstance(block, ImageBlock) and block.image is not None else object()
        for block in blocks
    ]


def user_message(text: str, images: Images) -> ChatMessage:
    """Make a user message of a text and images. Images come first: text before an image can't attend to it."""
    return ChatMessage(role=MessageRole.USER, blocks=[*map(image_block, images), TextBlock(text=text)])


def image_block(source: "ImageLike | DocumentBlock") -> ImageBlock | DocumentBlock:
    """Convert an image of any type to a block, and a PDF or a TIFF of several pages to a `DocumentBlock`."""
    if isinstance(source, (ImageBlock, DocumentBlock)):
        return source
    is_file = isinstance(source, (str, bytes, os.PathLike)) or hasattr(source, "read")
    found = image_or_document(cast("Any", source)) if is_file else to_image(source)
    if isinstance(found, Document):
        title = found.name and display_name(found.name)
        return DocumentBlock(data=found.data, url=found.url, title=title)
    if found.url is not None:
        return ImageBlock(url=found.url, detail=found.detail)
    return ImageBlock(image=found.data, image_mimetype=found.media_type, detail=found.detail)
