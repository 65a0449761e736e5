"""Llama 3.2 Vision as a LangChain chat model."""

from llama_vision.langchain.chat_model import ChatLlamaVision
from llama_vision.langchain.registration import register_with_langchain

__all__ = ["ChatLlamaVision", "register_with_langchain"]
