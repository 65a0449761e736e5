"""Tool calling: LlamaIndex's tools to options of a call, and responses to its tool selections."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole, ToolCallBlock
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools.types import BaseTool
from pydantic_core import from_json

from llama_vision.adaptation.prompted_tools import can_emulate_tools, emulates_parallel_tool_calls
from llama_vision.core.json_types import as_mapping
from llama_vision.llamaindex.convert import call_block, legacy_tool_calls, to_request
from llama_vision.llamaindex.errors import ToolArgumentsError
from llama_vision.providers import Provider

_MAX_QUOTED = 200  # characters of arguments in an error's text, from their end


def build_messages(
    chat_history: Sequence[ChatMessage] | None, user_msg: str | ChatMessage | None
) -> list[ChatMessage]:
    """Append a user message to a copy of the history."""
    if isinstance(user_msg, str):
        user_msg = ChatMessage(role=MessageRole.USER, content=user_msg)
    return [*(chat_history or ()), *([] if user_msg is None else [user_msg])]


def tool_options(
    tools: Sequence[BaseTool], tool_choice: str | dict[str, Any] | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Add tools, if there are any, to the options of a call; options that are None are dropped."""
    merged: dict[str, Any] = dict(options)
    if tools:
        merged["tools"] = [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools]
        merged["tool_choice"] = tool_choice
    return {name: value for name, value in merged.items() if value is not None}


def single_call_option(provider: Provider, options: Mapping[str, Any]) -> dict[str, Any]:
    """Make the option that asks for at most one tool call, in the provider's field or in the prompt.

    It is empty if the options set it already, if the provider has no such field, and if no tools are offered.
    """
    if "parallel_tool_calls" in options:
        return {}
    request = to_request(provider, (), options, {})
    supported = provider.supports("parallel_tool_calls") or emulates_parallel_tool_calls(provider, request)
    return {"parallel_tool_calls": False} if request.tools and supported else {}


def supports_forced_call(provider: Provider, options: Mapping[str, Any]) -> bool:
    """Tell whether the model can be made to call a tool, by the provider's field or in the prompt."""
    return provider.supports("tool_choice") or can_emulate_tools(
        provider, to_request(provider, (), options, {})
    )


def only_first_call(response: ChatResponse) -> ChatResponse:
    """Keep the first of several tool calls, for callers that can handle only one."""
    calls = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
    if len(calls) > 1:
        message = response.message
        message.blocks = [block for block in message.blocks if block not in calls[1:]]
        message.additional_kwargs["tool_calls"] = message.additional_kwargs["tool_calls"][:1]
    return response


def is_final(response: ChatResponse) -> bool:
    """Tell whether a response is complete: it was not streamed, or is the last one of its stream."""
    return response.delta is None or as_mapping(response.raw).get("finish_reason") is not None


def tool_selections(response: ChatResponse, *, error_on_no_tool_call: bool) -> list[ToolSelection]:
    """Read the tool calls of a response; see `LlamaVision.get_tool_calls_from_response`."""
    calls = _call_blocks(response)
    if not calls and error_on_no_tool_call:
        raise ValueError(
            f"The model called no tool; it said: {response.message.content!r}. "
            "Pass tool_required=True to make it call one."
        )
    return [
        ToolSelection(
            tool_id=call.tool_call_id or "", tool_name=call.tool_name, tool_kwargs=_arguments(call, response)
        )
        for call in calls
    ]


def _call_blocks(response: ChatResponse) -> list[ToolCallBlock]:
    """Return the message's tool call blocks; another LLM's response may have calls only in `additional_kwargs`."""
    calls = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
    truncated = as_mapping(response.raw).get("finish_reason") == "length"
    return calls or [call_block(call, truncated=truncated) for call in legacy_tool_calls(response.message)]


def _arguments(call: ToolCallBlock, response: ChatResponse) -> dict[str, Any]:
    """Return the arguments; in an unfinished stream those so far, a string at their end included.

    Incomplete arguments of a complete response raise, since a tool must not run with them. Dropping the call instead
    would make an agent take the rest of the reply for its final answer.
    """
    if not isinstance(call.tool_kwargs, str):
        return call.tool_kwargs
    if not is_final(response):
        with contextlib.suppress(ValueError):
            return dict(as_mapping(from_json(call.tool_kwargs, allow_partial="trailing-strings")))
        return {}
    raw = as_mapping(response.raw)
    if raw.get("finish_reason") == "length":
        why = "The reply was cut off at max_tokens, in the middle of the call: raise max_tokens."
    else:
        why = "They are not a JSON object: ask again, with a larger max_tokens if they stop in the middle."
    quoted = call.tool_kwargs
    if len(quoted) > _MAX_QUOTED:
        quoted = f"...{quoted[-_MAX_QUOTED:]}"
    error = ToolArgumentsError(
        f"The arguments for the tool {call.tool_name} can't be used, and it was not called. {why} "
        f"They are: {quoted!r}"
    )
    raise error.with_context(raw.get("provider") or "", raw.get("model"))
