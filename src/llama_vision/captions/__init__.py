"""Captioning of many images: finding files, asking about each once, logging captions for a later run."""

from llama_vision.captions.citations import ANSWER_PROMPT, FoundSources, citation, cited_in
from llama_vision.captions.image_files import (
    ImageContent,
    ImageFile,
    ImageFiles,
    LoadedImage,
    Paths,
    find_images,
    list_pages,
)
from llama_vision.captions.log import Caption, CaptionLog
from llama_vision.captions.runner import (
    DEFAULT_CONCURRENCY,
    CaptionedImage,
    CaptionFailure,
    CaptionResult,
    CaptionRunner,
    CaptionSource,
)
from llama_vision.captions.task import DEFAULT_PROMPT, CaptionTask

__all__ = [
    "ANSWER_PROMPT",
    "DEFAULT_CONCURRENCY",
    "DEFAULT_PROMPT",
    "Caption",
    "CaptionFailure",
    "CaptionLog",
    "CaptionResult",
    "CaptionRunner",
    "CaptionSource",
    "CaptionTask",
    "CaptionedImage",
    "FoundSources",
    "ImageContent",
    "ImageFile",
    "ImageFiles",
    "LoadedImage",
    "Paths",
    "citation",
    "cited_in",
    "find_images",
    "list_pages",
]
