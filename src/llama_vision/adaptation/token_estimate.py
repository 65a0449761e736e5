"""How many tokens a request will have, estimated without a tokenizer and without a network.

Words: Llama 3's tokenizer takes about four bytes of English a token, fewer of other languages, so that this errs on the
large side there. Images: exact, by the arithmetic of their tiles (`images.tiles`).
"""

import json
from collections.abc import Sequence

from llama_vision.core.messages import Image, Message, Part, Text, ToolCall, ToolResult
from llama_vision.core.request import Tool
from llama_vision.images.dimensions import image_dimensions
from llama_vision.images.tiling import image_tokens

_BYTES_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4  # header and end of a turn
_UNKNOWN_SIZE = (1120, 1120)  # of an image by its address: the most that the model uses


def estimate_text_tokens(text: str) -> int:
    """Estimate the tokens of a text, rounded up."""
    return -(-len(text.encode(errors="replace")) // _BYTES_PER_TOKEN)


def estimate_tokens(messages: Sequence[Message], tools: Sequence[Tool] = ()) -> int:
    """Estimate the tokens of a conversation.

    Args:
        messages: The conversation.
        tools: Functions offered with it.

    Returns:
        Tokens: of words about right, of images exact where their size is known, else the most they can have.

    """
    count = sum(_TOKENS_PER_MESSAGE + sum(map(_tokens, message.parts)) for message in messages)
    described = (json.dumps([tool.name, tool.description, dict(tool.parameters)]) for tool in tools)
    return count + sum(map(estimate_text_tokens, described))


def _tokens(part: Part) -> int:
    match part:
        case Text():
            return estimate_text_tokens(part.text)
        case Image():
            width, height = (image_dimensions(part.data) if part.data else None) or _UNKNOWN_SIZE
            return image_tokens(width, height, part.detail)
        case ToolCall():
            return estimate_text_tokens(part.name + part.arguments)
        case ToolResult():
            return sum(map(_tokens, part.parts))
