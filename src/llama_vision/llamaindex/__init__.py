"""Llama 3.2 Vision as LlamaIndex models. Needs the extra `llamaindex`."""

from llama_vision.captions import CaptionFailure
from llama_vision.core.errors import MissingDependencyError

try:
    from llama_vision.llamaindex.captions import Captions, acaption_images, caption_images
    from llama_vision.llamaindex.documents import PageReader
    from llama_vision.llamaindex.errors import StructuredOutputError, ToolArgumentsError
    from llama_vision.llamaindex.image_captioner import ImageCaptioner
    from llama_vision.llamaindex.llm import LlamaVision
    from llama_vision.llamaindex.multi_modal import LlamaVisionMultiModal
    from llama_vision.llamaindex.page_query_engine import PageQueryEngine
except ModuleNotFoundError as _error:
    raise MissingDependencyError(
        f"The models for LlamaIndex need {_error.name}: pip install 'llama-vision[llamaindex]'"
    ) from _error

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
