"""Captioning of many images: finding files, asking about each once, logging captions for a later run."""

from llama_vision.captions.image_files import ImageFile, ImageFiles, Paths, find_images, list_pages
from llama_vision.captions.log import Caption, CaptionLog
from llama_vision.captions.runner import (
    DEFAULT_CONCURRENCY,
    CaptionedImage,
    CaptionFailure,
    CaptionResult,
    CaptionRunner,
)
from llama_vision.captions.task import DEFAULT_PROMPT, CaptionTask

__all__ = [
    "DEFAULT_CONCURRENCY",
    "DEFAULT_PROMPT",
    "Caption",
    "CaptionFailure",
    "CaptionLog",
    "CaptionResult",
    "CaptionRunner",
    "CaptionTask",
    "CaptionedImage",
    "ImageFile",
    "ImageFiles",
    "Paths",
    "find_images",
    "list_pages",
]
