"""Llama 3.2 Vision as LlamaIndex models."""

from llama_vision.llamaindex.errors import StructuredOutputError, ToolArgumentsError
from llama_vision.llamaindex.llm import LlamaVision
from llama_vision.llamaindex.multi_modal import LlamaVisionMultiModal

__all__ = ["LlamaVision", "LlamaVisionMultiModal", "StructuredOutputError", "ToolArgumentsError"]
