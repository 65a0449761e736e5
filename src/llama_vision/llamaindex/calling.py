"""Tool calling of `LlamaVision`: the hooks that LlamaIndex's `FunctionCallingLLM` asks for."""

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools.types import BaseTool
from typing_extensions import override

from llama_vision.llamaindex.model import LlamaVisionModel
from llama_vision.llamaindex.program_tools import output_class_of
from llama_vision.llamaindex.tools import (
    build_messages,
    only_first_call,
    supports_forced_call,
    supports_single_call,
    tool_options,
    tool_selections,
)

_SINGLE_CALL = {"parallel_tool_calls": False}


class LlamaVisionCaller(LlamaVisionModel):
    """Adds tool calling."""

    @override
    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        tool_choice: str | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        # LlamaIndex's programs need the call in streams too, where they don't say that it is required.
        required = tool_required or (
            output_class_of(tools) is not None
            and supports_forced_call(self._provider, {**self._tool_settings, **kwargs})
        )
        options = tool_options(tools, tool_choice or ("required" if required else None), kwargs)
        # Where several are welcome nothing is said, since that is every server's own setting.
        if not allow_parallel_tool_calls:
            options |= self._single_call_option(options)
        return {"messages": build_messages(chat_history, user_msg), **options}

    def _single_call_option(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Ask for one call at a time, where that can be said and nothing else is."""
        said = "parallel_tool_calls" in options
        return (
            {}
            if said or not supports_single_call(self._provider, {**self._tool_settings, **options})
            else _SINGLE_CALL
        )

    @property
    def _tool_settings(self) -> dict[str, Any]:
        """Those fields that decide how tools are offered."""
        return {"model": self.model, "text_tool_calls": self.text_tool_calls}

    @override
    def _validate_chat_with_tools_response(
        self,
        response: ChatResponse,
        tools: Sequence[BaseTool],
        allow_parallel_tool_calls: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        return response if allow_parallel_tool_calls else only_first_call(response)

    @override
    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Read the tools that a response asks for.

        Args:
            response: From `chat_with_tools` or its streams, where the arguments may be unfinished.
            error_on_no_tool_call: Whether none is an error.
            **kwargs: Not used.

        Returns:
            The calls; while a stream is under way, with as much of their arguments as can be read.

        Raises:
            ToolArgumentsError: The response is whole, and a call's arguments are not a JSON object.
            ValueError: There is no call, and that is an error.

        """
        return tool_selections(response, error_on_no_tool_call=error_on_no_tool_call)
