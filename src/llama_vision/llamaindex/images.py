"""Images in every form that LlamaIndex has them."""

from pathlib import Path
from typing import Any, TypeAlias, cast

from llama_index.core.base.llms.types import ChatMessage, ContentBlock, ImageBlock
from llama_index.core.schema import ImageDocument, ImageNode, MediaResource, Node

from llama_vision.core.errors import ImageError
from llama_vision.core.messages import Image
from llama_vision.images import (
    ImageSource,
    image_from_any,
    image_from_base64,
    image_from_bytes,
    image_from_url,
)

ImageLike: TypeAlias = "ImageBlock | ImageNode | ImageDocument | MediaResource | ImageSource"
"""What `image_documents` may hold: LlamaIndex's own, or a path, bytes, a URL, a PIL image."""


def to_image(source: ImageLike) -> Image:
    """Translate an image. Labels are not asked for: the media type is told from the bytes.

    Args:
        source: The image.

    Returns:
        Ours.

    Raises:
        ImageError: It holds no image, or one that can't be read.

    """
    match source:
        case ImageBlock():
            return _from_block(source)
        case ImageNode():
            return _first_source(source, source.image, source.image_path, source.image_url)
        case Node():  # an ImageDocument is one
            resource = source.image_resource
            if resource is None:
                raise ImageError(f"The {type(source).__name__} {source.node_id} holds no image.")
            return to_image(resource)
        case MediaResource():
            return _first_source(source, source.data, source.path, source.url)
        case _:
            return image_from_any(source)


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
    """Read an `ImageBlock`'s bytes: it keeps them as base64, but takes short ones that look like it for base64 already."""
    try:
        return image_from_base64(stored, detail=detail)
    except ImageError:
        return image_from_bytes(stored, detail=detail)


def _first_source(source: object, data: str | bytes | None, path: Any, url: Any) -> Image:
    """Take what is there: base64 text, else a path, else an address."""
    if data:
        return image_from_base64(data)
    if path:
        return image_from_any(Path(path))
    if url:
        return image_from_url(str(url))
    raise ImageError(f"The {type(source).__name__} holds no image: it has no image, path or url.")


def message_blocks(message: ChatMessage) -> list[ContentBlock]:
    """List the content of a message, with images of the older `additional_kwargs["images"]` once.

    LlamaIndex appends those to the blocks whenever it validates the message, and again for each event that tells of it.

    Args:
        message: It is not changed.

    Returns:
        Its blocks.

    """
    blocks = list(message.blocks)
    older: Any = message.additional_kwargs.get("images")
    count = len(older) if isinstance(older, list) else 0  # pyright: ignore[reportUnknownArgumentType]
    while count and _images(blocks[-2 * count : -count]) == _images(blocks[-count:]):
        del blocks[-count:]
    return blocks


def _images(blocks: list[ContentBlock]) -> list[object]:
    """Make those that are no stored images unlike all others."""
    return [
        block.image if isinstance(block, ImageBlock) and block.image is not None else object()
        for block in blocks
    ]


def image_block(source: ImageLike) -> ImageBlock:
    """Make a block of an image in any form."""
    if isinstance(source, ImageBlock):
        return source
    image = to_image(source)
    if image.url is not None:
        return ImageBlock(url=image.url, detail=image.detail)
    return ImageBlock(image=image.data, image_mimetype=image.media_type, detail=image.detail)
