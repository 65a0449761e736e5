"""`LlamaVisionMultiModal`: for code that requires LlamaIndex's `MultiModalLLM`."""

from typing import Any

from llama_index.core.base.llms.generic_utils import (
    astream_chat_response_to_completion_response,
    chat_response_to_completion_response,
    stream_chat_response_to_completion_response,
)
from llama_index.core.base.llms.types import (
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
)
from llama_index.core.multi_modal_llms.base import MultiModalLLM
from typing_extensions import override

from llama_vision.llamaindex.images import Images
from llama_vision.llamaindex.llm import LlamaVision


class LlamaVisionMultiModal(LlamaVision, MultiModalLLM):  # pyright: ignore[reportIncompatibleMethodOverride] - see below
    """`LlamaVision` as a `MultiModalLLM`.

    It is both an `LLM` and a `MultiModalLLM`: a class that is only the latter fails on every call since
    llama-index-core 0.14.23, whose callbacks read what only an `LLM` has. Arguments and methods are those of
    `LlamaVision`, except for the order of two: a `MultiModalLLM` takes images second, as in `complete(prompt, images)`.
    `MultiModalLLM` adds the callbacks to the methods below.
    """

    @classmethod
    @override
    def class_name(cls) -> str:
        return "llama_vision_multi_modal_llm"

    @override
    def complete(  # pyright: ignore[reportIncompatibleMethodOverride] - the two bases disagree
        self, prompt: str, image_documents: Images | None = None, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """Reply to a prompt. See `LlamaVision.complete`."""
        request = self._prompt_request(prompt, formatted, image_documents, kwargs)
        return chat_response_to_completion_response(self._chat(request, self._backend(kwargs)))

    @override
    def stream_complete(  # pyright: ignore[reportIncompatibleMethodOverride] - as above
        self, prompt: str, image_documents: Images | None = None, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        """Stream the reply to a prompt. See `LlamaVision.complete`."""
        request = self._prompt_request(prompt, formatted, image_documents, kwargs)
        return stream_chat_response_to_completion_response(self._stream_chat(request, self._backend(kwargs)))

    @override
    async def acomplete(  # pyright: ignore[reportIncompatibleMethodOverride] - as above
        self, prompt: str, image_documents: Images | None = None, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """Reply to a prompt, asynchronously. See `LlamaVision.complete`."""
        request = self._prompt_request(prompt, formatted, image_documents, kwargs)
        return chat_response_to_completion_response(await self._achat(request, self._backend(kwargs)))

    @override
    async def astream_complete(  # pyright: ignore[reportIncompatibleMethodOverride] - as above
        self, prompt: str, image_documents: Images | None = None, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Stream the reply to a prompt, asynchronously. See `LlamaVision.complete`."""
        request = self._prompt_request(prompt, formatted, image_documents, kwargs)
        return astream_chat_response_to_completion_response(
            self._astream_chat(request, self._backend(kwargs))
        )
