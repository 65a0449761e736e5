"""LlamaIndex's side of tool calling: from its tools to options, and from responses to its selections."""

from collections.abc import Sequence
from typing import Any, cast

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole, ToolCallBlock
from llama_index.core.llms import utils as llama_index_json
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools.types import BaseTool


def chat_with_tools_options(
    tools: Sequence[BaseTool],
    *,
    user_msg: str | ChatMessage | None,
    chat_history: list[ChatMessage] | None,
    tool_choice: str | dict[str, Any] | None,
    parallel_tool_calls: bool | None,
    **kwargs: Any,
) -> dict[str, Any]:
    """Put together what `chat` is called with. The history given is copied, not changed.

    Args:
        tools: The tools; without any, nothing about tools is said.
        user_msg: The next message.
        chat_history: The messages before it.
        tool_choice: Whether a tool has to be called.
        parallel_tool_calls: Whether several may be called at once; None says nothing about it.
        **kwargs: Further options.

    Returns:
        Arguments for `chat`.

    """
    messages = list(chat_history or ())
    if user_msg is not None:
        message = (
            ChatMessage(role=MessageRole.USER, content=user_msg) if isinstance(user_msg, str) else user_msg
        )
        messages.append(message)
    options: dict[str, Any] = {"messages": messages, **kwargs}
    if tools:
        options["tools"] = [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools]
        options["tool_choice"] = tool_choice
        options["parallel_tool_calls"] = parallel_tool_calls
    return {name: value for name, value in options.items() if value is not None}


def only_first_call(response: ChatResponse) -> ChatResponse:
    """Keep the first of several tool calls, for callers that can handle only one."""
    calls = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
    if len(calls) > 1:
        message = response.message
        message.blocks = [block for block in message.blocks if block not in calls[1:]]
        message.additional_kwargs["tool_calls"] = message.additional_kwargs["tool_calls"][:1]
    return response


def tool_selections(response: ChatResponse, *, error_on_no_tool_call: bool) -> list[ToolSelection]:
    """Read the tools that a response asks for; see `LlamaVision.get_tool_calls_from_response`."""
    calls = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
    if not calls and error_on_no_tool_call:
        raise ValueError(
            f"The model called no tool; it said: {response.message.content!r}. "
            "Pass tool_required=True to make it call one."
        )
    return [
        ToolSelection(
            tool_id=call.tool_call_id or "",
            tool_name=call.tool_name,
            tool_kwargs=_arguments(call.tool_kwargs),
        )
        for call in calls
    ]


def _arguments(arguments: dict[str, Any] | str) -> dict[str, Any]:
    """Read arguments that may still be on their way."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return cast("Any", llama_index_json).parse_partial_json(arguments)
    except ValueError:
        return {}
