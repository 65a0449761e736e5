"""Tells of tool calls whose arguments can't be read in words: many servers refuse arguments that are not JSON."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from llama_vision.core.messages import Message, Text, ToolCall, ToolResult


def replace_invalid_tool_calls(
    messages: Sequence[Message], is_readable: Callable[[ToolCall], bool]
) -> Iterator[Message]:
    """Put calls that can't be read into words, each in a line of its own, and what was answered to them into the user's mouth.

    Args:
        messages: A conversation.
        is_readable: Tells whether a call is.

    Yields:
        The messages; those without such calls as they are.

    """
    unreadable: set[str | None] = set()  # of the calls so far: an id may come again in a later turn
    for message in messages:
        calls = [part for part in message.parts if isinstance(part, ToolCall)]
        broken = [call for call in calls if not is_readable(call)]
        unreadable = (unreadable - {call.id for call in calls}) | {call.id for call in broken}
        match message.parts:
            case _ if broken:
                said = [part for part in message.parts if part not in calls]
                sound = [call for call in calls if call not in broken]
                yield replace(message, parts=(*said, *_describe_calls(broken, message.text), *sound))
            case (ToolResult() as result,) if result.call_id in unreadable:
                yield Message("user", result.parts)
            case _:
                yield message


def _describe_calls(calls: Sequence[ToolCall], said: str) -> list[Text]:
    """Tell of calls, but of none that stands in the message's words already, as where the model wrote it as text."""
    lines = [
        f"I called {call.name} with arguments that can't be read: {call.arguments}"
        for call in calls
        if not (call.arguments.strip() and call.name in said and call.arguments in said)
    ]
    return [Text("\n" * bool(said) + "\n".join(lines))] if lines else []
