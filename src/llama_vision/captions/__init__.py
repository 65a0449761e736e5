"""Folders of pictures described: which files are pictures, who is asked about them, and what is kept of the answers."""

from llama_vision.captions.caption_log import Caption, CaptionLog
from llama_vision.captions.captioning import (
    DEFAULT_CONCURRENCY,
    Captioned,
    CaptionFailure,
    Captioning,
    Outcome,
    check_concurrency,
)
from llama_vision.captions.picture_files import Paths, PictureFiles, absolute, find_pictures
from llama_vision.captions.question import DEFAULT_PROMPT, Question

__all__ = [
    "DEFAULT_CONCURRENCY",
    "DEFAULT_PROMPT",
    "Caption",
    "CaptionFailure",
    "CaptionLog",
    "Captioned",
    "Captioning",
    "Outcome",
    "Paths",
    "PictureFiles",
    "Question",
    "absolute",
    "check_concurrency",
    "find_pictures",
]
