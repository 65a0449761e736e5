"""Llama 3.2 Vision as LlamaIndex models."""

from llama_vision.captions import CaptionFailure
from llama_vision.llamaindex.captions import Captions, acaption_images, caption_images
from llama_vision.llamaindex.documents import PageReader
from llama_vision.llamaindex.errors import StructuredOutputError, ToolArgumentsError
from llama_vision.llamaindex.image_captioner import ImageCaptioner
from llama_vision.llamaindex.llm import LlamaVision
from llama_vision.llamaindex.multi_modal import LlamaVisionMultiModal
from llama_vision.llamaindex.page_query_engine import PageQueryEngine

__all__ = [
    "CaptionFailure",
    "Captions",
    "ImageCaptioner",
    "LlamaVision",
    "LlamaVisionMultiModal",
    "PageQueryEngine",
    "PageReader",
    "StructuredOutputError",
    "ToolArgumentsError",
    "acaption_images",
    "caption_images",
]
