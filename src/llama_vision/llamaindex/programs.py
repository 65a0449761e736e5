"""Structured output of `LlamaVision` for the programs that LlamaIndex's own parts make for a model that calls tools."""

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponseAsyncGen, ChatResponseGen
from llama_index.core.chat_engine.types import AgentChatResponse
from llama_index.core.tools.types import BaseTool
from pydantic import BaseModel
from typing_extensions import override

from llama_vision.llamaindex.predict import LlamaVisionPredictor
from llama_vision.llamaindex.program_tools import output_class_of, to_agent_response, to_chat_response
from llama_vision.llamaindex.structured_output import StructuredPrediction
from llama_vision.llamaindex.tools import build_messages


class LlamaVisionPrograms(LlamaVisionPredictor):
    """Answers the tool of a `FunctionCallingProgram` as it answers `structured_predict`.

    The program knows one way only, a tool that it doesn't force in streams, and has no other hook than these methods.
    """

    @override
    def predict_and_call(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        error_on_no_tool_call: bool = True,
        error_on_tool_error: bool = False,
        **kwargs: Any,
    ) -> AgentChatResponse:
        """Let the model choose a tool, and call it. See LlamaIndex's `FunctionCallingLLM`."""
        asking = self._asking_for_program(
            tools, user_msg, chat_history, kwargs, several=allow_parallel_tool_calls
        )
        if asking is None:
            return super().predict_and_call(
                tools,
                user_msg,
                chat_history,
                verbose,
                allow_parallel_tool_calls,
                error_on_no_tool_call,
                error_on_tool_error,
                **kwargs,
            )
        found = self._predict(asking)
        return to_agent_response(tools[0], asking.text, found)

    @override
    async def apredict_and_call(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        error_on_no_tool_call: bool = True,
        error_on_tool_error: bool = False,
        **kwargs: Any,
    ) -> AgentChatResponse:
        """Let the model choose a tool, and call it. See LlamaIndex's `FunctionCallingLLM`."""
        asking = self._asking_for_program(
            tools, user_msg, chat_history, kwargs, several=allow_parallel_tool_calls
        )
        if asking is None:
            return await super().apredict_and_call(
                tools,
                user_msg,
                chat_history,
                verbose,
                allow_parallel_tool_calls,
                error_on_no_tool_call,
                error_on_tool_error,
                **kwargs,
            )
        found = await self._apredict(asking)
        return to_agent_response(tools[0], asking.text, found)

    @override
    def stream_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponseGen:
        """Offer tools and answer piece by piece. See LlamaIndex's `FunctionCallingLLM`."""
        asking = self._asking_for_program(
            tools, user_msg, chat_history, kwargs, several=allow_parallel_tool_calls, retries=False
        )
        if asking is None:
            return super().stream_chat_with_tools(
                tools,
                user_msg,
                chat_history,
                verbose,
                allow_parallel_tool_calls,
                tool_required,
                **kwargs,
            )
        return (to_chat_response(asking.text) for _ in self._stream_objects(asking))

    @override
    async def astream_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponseAsyncGen:
        """Offer tools and answer piece by piece. See LlamaIndex's `FunctionCallingLLM`."""
        asking = self._asking_for_program(
            tools, user_msg, chat_history, kwargs, several=allow_parallel_tool_calls, retries=False
        )
        if asking is None:
            return await super().astream_chat_with_tools(
                tools,
                user_msg,
                chat_history,
                verbose,
                allow_parallel_tool_calls,
                tool_required,
                **kwargs,
            )
        return (to_chat_response(asking.text) async for _ in self._astream_objects(asking))

    def _asking_for_program(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None,
        chat_history: list[ChatMessage] | None,
        options: Mapping[str, Any],
        *,
        several: bool,
        retries: bool = True,
    ) -> StructuredPrediction[BaseModel] | None:
        """Begin to ask for the object that a program's tool stands for; None where it is LlamaIndex's own affair."""
        wanted = output_class_of(tools)
        if wanted is None or several or self._uses_llamaindex_program:
            return None
        return self._session(wanted, build_messages(chat_history, user_msg), options, retries=retries)
