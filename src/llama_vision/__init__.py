"""Llama 3.2 Vision for LangChain (`llama_vision.langchain`) and LlamaIndex (`llama_vision.llamaindex`).

This module holds the core that both share. It loads no framework, no torch and no PIL.
"""

from llama_vision.core.errors import LlamaVisionError
from llama_vision.core.messages import Document, Image, Message, Text, ToolCall, ToolResult
from llama_vision.core.models import ModelInfo, Price
from llama_vision.core.reply import Reply
from llama_vision.core.request import ChatRequest, ResponseFormat, SamplingParams, Tool, ToolChoice
from llama_vision.core.usage import Usage
from llama_vision.images import Page, image_from_any, pages
from llama_vision.providers import PROVIDERS, Provider, find_provider
from llama_vision.providers.route import Route, Target
from llama_vision.version import __version__


def use_aiohttp(*, enabled: bool = True) -> None:
    """Carry asynchronous calls over aiohttp, which costs a fraction of httpx's processor time when many run at once.

    It needs the extra `llama-vision[aiohttp]`, and holds for the clients of event loops that make their first call after it.

    Args:
        enabled: False goes back to httpx.

    Raises:
        MissingDependencyError: The extra is not installed.
    """
    from llama_vision.backends.http import connection_pools  # noqa: PLC0415 - loads httpx, for who asks for it

    connection_pools.use_aiohttp(enabled=enabled)


__all__ = [
    "PROVIDERS",
    "ChatRequest",
    "Document",
    "Image",
    "LlamaVisionError",
    "Message",
    "ModelInfo",
    "Page",
    "Price",
    "Provider",
    "Reply",
    "ResponseFormat",
    "Route",
    "SamplingParams",
    "Target",
    "Text",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "ToolResult",
    "Usage",
    "__version__",
    "find_provider",
    "image_from_any",
    "pages",
    "use_aiohttp",
]
