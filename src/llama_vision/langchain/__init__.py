"""Llama 3.2 Vision as a LangChain chat model."""

from llama_vision.langchain.chat_model import ChatLlamaVision

__all__ = ["ChatLlamaVision"]
