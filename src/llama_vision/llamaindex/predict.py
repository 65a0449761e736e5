"""Structured output of `LlamaVision`: a prompt answered with an object of a pydantic class."""

import contextlib
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from typing import Any, TypeVar, cast

from llama_index.core import instrumentation
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.instrumentation.events.llm import (
    LLMStructuredPredictEndEvent,
    LLMStructuredPredictStartEvent,
)
from llama_index.core.prompts.base import BasePromptTemplate
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel
from typing_extensions import override

from llama_vision.llamaindex.calling import LlamaVisionCaller
from llama_vision.llamaindex.structured_output import StructuredPrediction
from llama_vision.llamaindex.tools import is_final
from llama_vision.structured.method import plan_structured_output
from llama_vision.structured.output_schema import OutputSchema

_Model = TypeVar("_Model", bound=BaseModel)
_dispatcher = cast("Any", instrumentation).get_dispatcher(__name__)


class LlamaVisionPredictor(LlamaVisionCaller):
    """Adds structured output of prompts. An explicit `pydantic_program_mode` goes LlamaIndex's own way.

    Calls are made through the public endpoints, so that callbacks see and count each of them.
    """

    @override
    def structured_predict(
        self,
        output_cls: type[_Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> _Model:
        """Answer a prompt with an object.

        Args:
            output_cls: The pydantic class of the object.
            prompt: The prompt, which may hold images.
            llm_kwargs: Options of the call, such as `max_tokens`.
            **prompt_args: What the prompt's variables stand for.

        Returns:
            The object.

        Raises:
            StructuredOutputError: The model's answer doesn't fit the class; it is a `ValueError` too.
            LlamaVisionError: What else went wrong; the kinds are listed in `llama_vision.core.errors`.

        """
        if self._uses_llamaindex_program:
            return super().structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
        _dispatcher.event(
            LLMStructuredPredictStartEvent(output_cls=output_cls, template=prompt, template_args=prompt_args)
        )
        messages = prompt.format_messages(llm=self, **prompt_args)
        found = self._predict(self._session(output_cls, messages, llm_kwargs))
        _dispatcher.event(LLMStructuredPredictEndEvent(output=found))
        return found

    @override
    async def astructured_predict(
        self,
        output_cls: type[_Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> _Model:
        """Answer a prompt with an object, without blocking the event loop. See `structured_predict`."""
        if self._uses_llamaindex_program:
            return await super().astructured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
        _dispatcher.event(
            LLMStructuredPredictStartEvent(output_cls=output_cls, template=prompt, template_args=prompt_args)
        )
        messages = prompt.format_messages(llm=self, **prompt_args)
        found = await self._apredict(self._session(output_cls, messages, llm_kwargs))
        _dispatcher.event(LLMStructuredPredictEndEvent(output=found))
        return found

    # What `stream_structured_predict` and `astream_structured_predict` go through.

    @override
    def _structured_stream_call(
        self,
        output_cls: type[_Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Any]:
        if self._uses_llamaindex_program:
            return super()._structured_stream_call(output_cls, cast("Any", prompt), llm_kwargs, **prompt_args)
        messages = prompt.format_messages(llm=self, **prompt_args)
        return self._stream_objects(self._session(output_cls, messages, llm_kwargs))

    @override
    async def _structured_astream_call(
        self,
        output_cls: type[_Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any]:
        if self._uses_llamaindex_program:
            return await super()._structured_astream_call(
                output_cls, cast("Any", prompt), llm_kwargs, **prompt_args
            )
        messages = prompt.format_messages(llm=self, **prompt_args)
        return self._astream_objects(self._session(output_cls, messages, llm_kwargs))

    @property
    def _uses_llamaindex_program(self) -> bool:
        return self.pydantic_program_mode != PydanticProgramMode.DEFAULT

    def _session(
        self,
        output_cls: type[_Model],
        messages: Sequence[ChatMessage],
        options: Mapping[str, Any] | None,
        *,
        retries: bool = True,
    ) -> StructuredPrediction[_Model]:
        options = options or {}
        plan = plan_structured_output(
            OutputSchema.from_schema(output_cls),
            self.structured_output,
            self._provider,
            options.get("model") or self.model,
            text_tool_calls=options.get("text_tool_calls", self.text_tool_calls) is not False,
        )
        return StructuredPrediction(output_cls, plan, messages, options, retries=retries)

    def _predict(self, prediction: StructuredPrediction[_Model]) -> _Model:
        while (found := prediction.read(self.chat(**prediction.call))) is None:
            pass
        return found

    async def _apredict(self, prediction: StructuredPrediction[_Model]) -> _Model:
        while (found := prediction.read(await self.achat(**prediction.call))) is None:
            pass
        return found

    def _stream_objects(self, prediction: StructuredPrediction[_Model]) -> Generator[BaseModel]:
        """Give the object as it grows; the last one is whole. Where an answer doesn't fit, the next begins anew."""
        while True:
            last = ChatResponse(message=ChatMessage())
            with contextlib.closing(self.stream_chat(**prediction.call)) as responses:
                for last in responses:
                    if not is_final(last) and (so_far := prediction.partial(last)) is not None:
                        yield so_far
            if (found := prediction.read(last)) is not None:
                yield found
                return

    async def _astream_objects(self, prediction: StructuredPrediction[_Model]) -> AsyncGenerator[BaseModel]:
        """As `_stream_objects`."""
        while True:
            last = ChatResponse(message=ChatMessage())
            async with contextlib.aclosing(await self.astream_chat(**prediction.call)) as responses:
                async for last in responses:
                    if not is_final(last) and (so_far := prediction.partial(last)) is not None:
                        yield so_far
            if (found := prediction.read(last)) is not None:
                yield found
                return
