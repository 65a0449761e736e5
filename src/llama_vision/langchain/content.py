"""Content blocks of a LangChain message: text, images and files in every format in use."""

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from llama_vision.core.errors import ImageError, UnsupportedInputError
from llama_vision.core.json_types import as_mapping
from llama_vision.core.messages import Document, Image, Role, Text
from llama_vision.images import image_from_base64, image_from_bytes, image_from_url
from llama_vision.langchain.files import file_part


def content_parts(
    content: str | list[str | dict[str, Any]], role: Role
) -> tuple[Text | Image | Document, ...]:
    """Convert the content of a message: a string, or strings and blocks of LangChain's v1 and v0 and of other APIs.

    These are OpenAI's chat completions and responses, Anthropic's, Google's and Bedrock's.

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
    if [*block] == ["text"] and role != "tool":  # Bedrock's; a tool's is a row of data
        return Text(str(block["text"]))
    try:
        return _part(block)
    except UnsupportedInputError:
        if role == "assistant" and block.get("type") not in ("image", "image_url", "input_image"):
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
    if kind in ("text", "text-plain", "input_text", "output_text") and "text" in block:
        return Text(str(block["text"] or ""))
    if kind == "refusal" and isinstance(
        block.get("refusal"), str
    ):  # OpenAI's: what the user read in place of text
        return Text(block["refusal"])
    if (part := _image_part(block) or file_part(block)) is not None:
        return part
    if kind == "non_standard" and isinstance(block.get("value"), Mapping):
        return _part(block["value"])
    raise UnsupportedInputError(
        f"A block of type {kind!r} can't be shown to Llama 3.2 Vision. It takes text, images and PDFs: "
        "for a video pass images of its frames, for sound its words."
    )


def _image_part(block: Mapping[str, Any]) -> Image | None:
    """Convert an image in any spelling; None of another block."""
    kind, nested = block.get("type"), as_mapping(block.get("image"))
    if kind in ("image_url", "input_image"):  # the latter has `detail` beside its URL
        return _openai_image(block.get("image_url"), block.get("detail"))
    if kind in (None, "image") and isinstance(nested.get("source"), Mapping):  # Bedrock's
        return _image_of_source(nested["source"])
    inline = as_mapping(block.get("inline_data", block.get("inlineData")))  # Google's
    if kind is None and "image/" in str(inline.get("mime_type", inline.get("mimeType"))):
        return _image(inline)
    if kind != "image":
        return None
    return _image_of_source(block["source"]) if isinstance(block.get("source"), Mapping) else _image(block)


def _openai_image(value: object, detail: str | None = None) -> Image:
    """Convert `{"url": ..., "detail": ...}`, or the URL alone."""
    if isinstance(value, str):
        return image_from_url(value, detail=detail)
    spelled = as_mapping(value)
    if isinstance(spelled.get("url"), str):
        return image_from_url(spelled["url"], detail=spelled.get("detail", detail))
    raise UnsupportedInputError(
        'An "image_url" block needs {"image_url": {"url": "..."}}, and an "input_image" block {"image_url": "..."}.'
    )


def _image(block: Mapping[str, Any]) -> Image:
    """Convert a block of LangChain's own: v1 (`base64`, `url`) or v0 (`source_type` and `data` or `url`), or like it."""
    data = block.get("base64") or block.get("data")
    if isinstance(data, (str, bytes)):
        return _image_of_data(data)
    if isinstance(block.get("url"), str):
        return image_from_url(block["url"])
    if isinstance(block.get("image_url"), (str, Mapping)):
        return _openai_image(block["image_url"], block.get("detail"))
    if isinstance(text := block.get("image"), (str, bytes)):  # Vercel's, and of chat templates
        return image_from_url(text) if isinstance(text, str) and "://" in text[:10] else _image_of_data(text)
    if block.get("file_id") or block.get("source_type") == "id":
        raise UnsupportedInputError(
            "A file_id belongs to the company that keeps the file; no provider here has one. "
            "Pass the image as base64 or by its URL."
        )
    raise UnsupportedInputError('An "image" block needs "base64" or "url".')


def _image_of_source(source: Mapping[str, Any]) -> Image:
    """Convert Anthropic's `source` (`type`, and `data` or `url`), or Bedrock's (`bytes`)."""
    data = source.get("data") if source.get("type") == "base64" else source.get("bytes")
    if isinstance(data, (str, bytes)):
        return _image_of_data(data)
    if source.get("type") == "url" and isinstance(source.get("url"), str):
        return image_from_url(source["url"])
    raise UnsupportedInputError(
        'An image\'s "source" needs type "base64" with "data", type "url" with "url", or "bytes".'
    )


def _image_of_data(data: str | bytes) -> Image:
    """Make an image from base64 text, or from the file itself."""
    if isinstance(data, bytes):
        with contextlib.suppress(ImageError):
            return image_from_bytes(data)
    return image_from_base64(data)
