"""`LlamaVisionMultiModal`: for code that asks for LlamaIndex's `MultiModalLLM`."""

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
)
from llama_index.core.multi_modal_llms.base import MultiModalLLM
from typing_extensions import override

from llama_vision.llamaindex.images import ImageLike
from llama_vision.llamaindex.llm import LlamaVision


class LlamaVisionMultiModal(LlamaVision, MultiModalLLM):  # pyright: ignore[reportIncompatibleMethodOverride] - see below
    """`LlamaVision` under LlamaIndex's other name for models that see.

    It is both an `LLM` and a `MultiModalLLM`: a class that is only the latter fails on every call since
    llama-index-core 0.14.23, whose callbacks ask for what only an `LLM` has. Arguments and methods are `LlamaVision`'s,
    but for the order of two: a `MultiModalLLM` takes its images second, so that `complete(prompt, images)` works.
    The base class reports the calls of these methods to the callbacks.
    """

    @classmethod
    @override
    def class_name(cls) -> str:
        return "llama_vision_multi_modal_llm"

    @override
    def complete(  # pyright: ignore[reportIncompatibleMethodOverride] - the two bases disagree
        self,
        prompt: str,
        image_documents: Sequence[ImageLike] | None = None,
        formatted: bool = False,
        **kwargs: Any,
    ) -> CompletionResponse:
        """Answer a prompt. See `LlamaVision.complete`."""
        return self._complete(prompt, formatted, image_documents, kwargs)

    @override
    def stream_complete(  # pyright: ignore[reportIncompatibleMethodOverride] - as above
        self,
        prompt: str,
        image_documents: Sequence[ImageLike] | None = None,
        formatted: bool = False,
        **kwargs: Any,
    ) -> CompletionResponseGen:
        """Answer a prompt piece by piece. See `LlamaVision.complete`."""
        return self._stream_complete(prompt, formatted, image_documents, kwargs)

    @override
    async def acomplete(  # pyright: ignore[reportIncompatibleMethodOverride] - as above
        self,
        prompt: str,
        image_documents: Sequence[ImageLike] | None = None,
        formatted: bool = False,
        **kwargs: Any,
    ) -> CompletionResponse:
        """Answer a prompt without blocking the event loop. See `LlamaVision.complete`."""
        return await self._acomplete(prompt, formatted, image_documents, kwargs)

    @override
    async def astream_complete(  # pyright: ignore[reportIncompatibleMethodOverride] - as above
        self,
        prompt: str,
        image_documents: Sequence[ImageLike] | None = None,
        formatted: bool = False,
        **kwargs: Any,
    ) -> CompletionResponseAsyncGen:
        """Answer a prompt piece by piece, without blocking the event loop. See `LlamaVision.complete`."""
        return self._astream_complete(prompt, formatted, image_documents, kwargs)
