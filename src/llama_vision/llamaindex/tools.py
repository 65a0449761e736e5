"""LlamaIndex's side of tool calling: from its tools to options, and from responses to its selections."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole, ToolCallBlock
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools.types import BaseTool
from pydantic_core import from_json

from llama_vision.adaptation.prompted_tools import can_emulate_tools, emulates_parallel_tool_calls
from llama_vision.core.json_types import as_mapping
from llama_vision.llamaindex.convert import call_block, legacy_tool_calls, to_request
from llama_vision.llamaindex.errors import ToolArgumentsError
from llama_vision.providers import Provider

_SHOWN = 200  # characters of arguments in an error's text, from their end


def build_messages(
    chat_history: Sequence[ChatMessage] | None, user_msg: str | ChatMessage | None
) -> list[ChatMessage]:
    """Put a history and the next message together; the history given is copied, not changed."""
    messages = list(chat_history or ())
    if isinstance(user_msg, str):
        messages.append(ChatMessage(role=MessageRole.USER, content=user_msg))
    elif user_msg is not None:
        messages.append(user_msg)
    return messages


def tool_options(
    tools: Sequence[BaseTool], tool_choice: str | dict[str, Any] | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Add tools to the options of a call.

    Args:
        tools: The tools; without any, nothing about tools is said.
        tool_choice: Whether a tool has to be called.
        options: Further options.

    Returns:
        The options that are set.

    """
    offered: dict[str, Any] = dict(options)
    if tools:
        offered["tools"] = [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools]
        offered["tool_choice"] = tool_choice
    return {name: value for name, value in offered.items() if value is not None}


def supports_single_call(provider: Provider, options: Mapping[str, Any]) -> bool:
    """Tell whether the model can be asked for one call at a time, in a field of the provider's or in words.

    Args:
        provider: Who is asked.
        options: Of the call, `model` among them.

    """
    request = to_request(provider, (), options, {})
    can_say = provider.supports("parallel_tool_calls") or emulates_parallel_tool_calls(provider, request)
    return bool(request.tools) and can_say


def supports_forced_call(provider: Provider, options: Mapping[str, Any]) -> bool:
    """Tell whether the model can be made to call a tool, by the provider or in words; see `supports_single_call`."""
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
    """Tell whether a response is whole: it was not streamed, or it is the last of its stream."""
    return response.delta is None or as_mapping(response.raw).get("finish_reason") is not None


def tool_selections(response: ChatResponse, *, error_on_no_tool_call: bool) -> list[ToolSelection]:
    """Read the tools that a response asks for; see `LlamaVision.get_tool_calls_from_response`."""
    calls = _calls_in(response)
    if not calls and error_on_no_tool_call:
        raise ValueError(
            f"The model called no tool; it said: {response.message.content!r}. "
            "Pass tool_required=True to make it call one."
        )
    read = _final_arguments if is_final(response) else _partial_arguments
    return [
        ToolSelection(
            tool_id=call.tool_call_id or "", tool_name=call.tool_name, tool_kwargs=read(call, response)
        )
        for call in calls
    ]


def _calls_in(response: ChatResponse) -> list[ToolCallBlock]:
    """Take the calls of the message's blocks, or of where they stood before: another's response may have them only there."""
    calls = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
    cut = as_mapping(response.raw).get("finish_reason") == "length"
    return calls or [call_block(call, cut=cut) for call in legacy_tool_calls(response.message)]


def _final_arguments(call: ToolCallBlock, response: ChatResponse) -> dict[str, Any]:
    """Read arguments that are all there, or refuse: a tool must not run with half of what it was to be given.

    Leaving the call out instead would make an agent take the rest of the reply for its final answer.
    """
    if not isinstance(call.tool_kwargs, str):
        return call.tool_kwargs
    raw = as_mapping(response.raw)
    if raw.get("finish_reason") == "length":
        why = "The reply was cut off at max_tokens, in the middle of the call: raise max_tokens."
    else:
        why = "They are not a JSON object: ask again, with a larger max_tokens if they stop in the middle."
    shown = call.tool_kwargs if len(call.tool_kwargs) <= _SHOWN else f"...{call.tool_kwargs[-_SHOWN:]}"
    error = ToolArgumentsError(
        f"The arguments for the tool {call.tool_name} can't be used, and it was not called. {why} "
        f"They are: {shown!r}"
    )
    raise error.with_context(raw.get("provider") or "", raw.get("model"))


def _partial_arguments(call: ToolCallBlock, _: ChatResponse) -> dict[str, Any]:
    """Read arguments that are still on their way, for those who show them as they come."""
    arguments = call.tool_kwargs
    return (parse_partial_object(arguments) or {}) if isinstance(arguments, str) else arguments


def parse_partial_object(text: str) -> dict[str, Any] | None:
    """Read a JSON object whose text is still on its way.

    Args:
        text: What has come of it.

    Returns:
        The object, with a string at its end as far as it has come; None where it can't be read.

    """
    try:
        value: object = from_json(text, allow_partial="trailing-strings")
    except ValueError:
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None
