"""Llama 3.2 Vision for LangChain (`llama_vision.langchain`) and LlamaIndex (`llama_vision.llamaindex`).

This module holds the core that both share. It loads no framework, no torch and no PIL; each of its names is imported with its first use.
"""

import importlib
from typing import TYPE_CHECKING

from llama_vision.version import __version__

if TYPE_CHECKING:
    from llama_vision.core.errors import LlamaVisionError
    from llama_vision.core.messages import Document, Image, Message, Text, ToolCall, ToolResult
    from llama_vision.core.models import ModelInfo, Price
    from llama_vision.core.reply import Reply
    from llama_vision.core.request import ChatRequest, ResponseFormat, SamplingParams, Tool, ToolChoice
    from llama_vision.core.usage import Usage
    from llama_vision.images import Page, image_from_any, pages
    from llama_vision.providers import PROVIDERS, Provider, find_provider
    from llama_vision.providers.route import Route, Target

_MODULES = {
    "core.errors": ("LlamaVisionError",),
    "core.messages": ("Document", "Image", "Message", "Text", "ToolCall", "ToolResult"),
    "core.models": ("ModelInfo", "Price"),
    "core.reply": ("Reply",),
    "core.request": ("ChatRequest", "ResponseFormat", "SamplingParams", "Tool", "ToolChoice"),
    "core.usage": ("Usage",),
    "images": ("Page", "image_from_any", "pages"),
    "providers": ("PROVIDERS", "Provider", "find_provider"),
    "providers.route": ("Route", "Target"),
}
"""Where the names are: a command of the command line has to be in control of ctrl-C before anything large is imported."""

if not TYPE_CHECKING:  # to a type checker, a name that is not there would be one of type Any

    def __getattr__(name: str) -> object:
        for module, names in _MODULES.items():
            if name in names:
                value = getattr(importlib.import_module(f"llama_vision.{module}"), name)
                globals()[name] = value
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


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
