"""Llama 3.2 Vision as a LangChain chat model. Needs the extra `langchain`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from llama_vision.core.errors import MissingDependencyError

try:
    from llama_vision.langchain.chat_model import ChatLlamaVision
    from llama_vision.langchain.images import human, image_block
    from llama_vision.langchain.registration import register_with_langchain
except ModuleNotFoundError as _error:
    raise MissingDependencyError(
        f"The chat model for LangChain needs {_error.name}: pip install 'llama-vision[langchain]'"
    ) from _error

if TYPE_CHECKING:
    from llama_vision.langchain.caption_loader import CaptionLoader
    from llama_vision.langchain.page_chain import create_page_chain

__all__ = [
    "CaptionLoader",
    "ChatLlamaVision",
    "create_page_chain",
    "human",
    "image_block",
    "register_with_langchain",
]

_LOADED_LATE = {"CaptionLoader": "caption_loader", "create_page_chain": "page_chain"}
"""They bring LangChain's loaders and prompts, which take as long to import as all the rest."""


def __getattr__(name: str) -> Any:
    """Load a name of `_LOADED_LATE` with its first use."""
    if name not in _LOADED_LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LOADED_LATE[name]}"), name)
