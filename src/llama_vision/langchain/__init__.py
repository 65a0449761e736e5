"""Llama 3.2 Vision as a LangChain chat model. Needs the extra `langchain`."""

from llama_vision.core.errors import MissingDependencyError

try:
    from llama_vision.langchain.caption_loader import CaptionLoader
    from llama_vision.langchain.chat_model import ChatLlamaVision
    from llama_vision.langchain.images import human, image_block
    from llama_vision.langchain.page_chain import create_page_chain
    from llama_vision.langchain.registration import register_with_langchain
except ModuleNotFoundError as _error:
    raise MissingDependencyError(
        f"The chat model for LangChain needs {_error.name}: pip install 'llama-vision[langchain]'"
    ) from _error

__all__ = [
    "CaptionLoader",
    "ChatLlamaVision",
    "create_page_chain",
    "human",
    "image_block",
    "register_with_langchain",
]
