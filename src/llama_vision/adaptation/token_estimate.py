"""Estimates the number of tokens of a request, without a tokenizer or a network.

Text: about four bytes of English per token of Llama 3's tokenizer. Images: exact, by their tiles (`images.tiling`).
"""

import json
from collections.abc import Sequence
from typing import assert_never

from llama_vision.core.messages import Document, Image, Message, Part, Text, ToolCall, ToolResult
from llama_vision.core.request import Tool
from llama_vision.images.dimensions import image_dimensions
from llama_vision.images.documents import iter_pages
from llama_vision.images.tiling import image_tokens

_BYTES_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4  # header and end of turn
_UNKNOWN_SIZE = (1120, 1120)  # of an image given by its URL: the maximum the model uses


def estimate_text_tokens(text: str) -> int:
    """Estimate the tokens of a text, rounded up."""
    return -(-len(text.encode(errors="replace")) // _BYTES_PER_TOKEN)


def estimate_tokens(messages: Sequence[Message], tools: Sequence[Tool] = ()) -> int:
    """Estimate the tokens of a conversation and its tools: exact for images of known size, else their maximum."""
    count = sum(_TOKENS_PER_MESSAGE + sum(map(_tokens, message.parts)) for message in messages)
    described = (json.dumps([tool.name, tool.description, dict(tool.parameters)]) for tool in tools)
    return count + sum(map(estimate_text_tokens, described))


def _document_tokens(document: Document) -> int:
    """Count the images of its pages exactly; one of unknown size for what is given by its URL."""
    if document.url is not None:
        return image_tokens(*_UNKNOWN_SIZE)
    return sum(_tokens(page.image) + estimate_text_tokens(page.text) for page in iter_pages(document))


def _tokens(part: Part) -> int:
    match part:
        case Text():
            return estimate_text_tokens(part.text)
        case Image():
            width, height = (image_dimensions(part.data) if part.data else None) or _UNKNOWN_SIZE
            return image_tokens(width, height, part.detail)
        case Document():
            return _document_tokens(part)
        case ToolCall():
            return estimate_text_tokens(part.name + part.arguments)
        case ToolResult():
            return sum(map(_tokens, part.parts))
        case _:
            assert_never(part)
