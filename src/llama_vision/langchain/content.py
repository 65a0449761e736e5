"""Content blocks of a LangChain message: text, images and files in every format in use."""

import json
from collections.abc import Mapping
from typing import Any

from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.json_types import as_mapping
from llama_vision.core.messages import Document, Image, Role, Text
from llama_vision.images import image_from_base64, image_from_url
from llama_vision.langchain.files import file_part


def content_parts(
    content: str | list[str | dict[str, Any]], role: Role
) -> tuple[Text | Image | Document, ...]:
    """Convert the content of a message: a string, or strings and blocks of LangChain's v1 and v0, OpenAI's and Anthropic's.

    Other blocks of an assistant turn are left out: tool calls, which the message has elsewhere too, reasoning, and other
    companies' records of searches and code, which another model wrote for itself. Those of a tool's result are data and
    become JSON text.

    Raises:
        UnsupportedInputError: A block of another role, an image, or a tool's file of other kinds; the text names its type.
        ImageError: An image can't be read.
    """
    if isinstance(content, str):
        return (Text(content),) if content else ()
    parts: list[Text | Image | Document] = []
    for block in content:
        if isinstance(block, str):
            parts.append(Text(block))
        elif (part := _block_part(block, role)) is not None:
            parts.append(part)
    return tuple(parts)


def _block_part(block: Mapping[str, Any], role: Role) -> Text | Image | Document | None:
    if "cachePoint" in block and len(block) == 1:  # Bedrock's mark, in any role's content
        return None
    try:
        return _part(block)
    except UnsupportedInputError:
        if role == "assistant" and block.get("type") not in ("image", "image_url"):
            return None
        if role == "tool" and not _holds_file(block):
            return Text(json.dumps(block, ensure_ascii=False, default=str))
        raise


def _holds_file(block: Mapping[str, Any]) -> bool:
    """Tell whether a block holds a file in base64, as LangChain, Anthropic or OpenAI has it: as text it would fill the context."""
    kinds = (block.get("source_type"), as_mapping(block.get("source")).get("type"))
    return "base64" in block or "base64" in kinds or "file_data" in as_mapping(block.get("file"))


def _part(block: Mapping[str, Any]) -> Text | Image | Document:
    kind = block.get("type")
    if kind in ("text", "text-plain", "output_text") and "text" in block:
        return Text(str(block["text"] or ""))
    if kind == "refusal" and isinstance(
        block.get("refusal"), str
    ):  # OpenAI's: what the user read in place of text
        return Text(block["refusal"])
    if kind == "image_url":
        return _openai_image(block.get("image_url"))
    if kind == "image":
        return (
            _anthropic_image(block["source"]) if isinstance(block.get("source"), Mapping) else _image(block)
        )
    if (part := file_part(block)) is not None:
        return part
    if kind == "non_standard" and isinstance(block.get("value"), Mapping):
        return _part(block["value"])
    raise UnsupportedInputError(
        f"A block of type {kind!r} can't be shown to Llama 3.2 Vision. It takes text, images and PDFs: "
        "for a video pass images of its frames, for sound its words."
    )


def _openai_image(value: object) -> Image:
    """Convert `{"url": ..., "detail": ...}`, or the URL alone."""
    if isinstance(value, str):
        return image_from_url(value)
    spelled = as_mapping(value)
    if isinstance(spelled.get("url"), str):
        return image_from_url(spelled["url"], detail=spelled.get("detail"))
    raise UnsupportedInputError('An "image_url" block needs {"image_url": {"url": "..."}}.')


def _image(block: Mapping[str, Any]) -> Image:
    """Convert a block of LangChain's own: v1 (`base64`, `url`) or v0 (`source_type` and `data` or `url`)."""
    data = block.get("base64") or block.get("data")
    if isinstance(data, (str, bytes)):
        return image_from_base64(data)
    if isinstance(block.get("url"), str):
        return image_from_url(block["url"])
    if block.get("file_id") or block.get("source_type") == "id":
        raise UnsupportedInputError(
            "A file_id belongs to the company that keeps the file; no provider here has one. "
            "Pass the image as base64 or by its URL."
        )
    raise UnsupportedInputError('An "image" block needs "base64" or "url".')


def _anthropic_image(source: Mapping[str, Any]) -> Image:
    if source.get("type") == "base64" and isinstance(source.get("data"), (str, bytes)):
        return image_from_base64(source["data"])
    if source.get("type") == "url" and isinstance(source.get("url"), str):
        return image_from_url(source["url"])
    raise UnsupportedInputError(
        'An image\'s "source" needs type "base64" with "data", or type "url" with "url".'
    )
