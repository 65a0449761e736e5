"""Turns tool calls with unparseable arguments into text: many servers refuse arguments that are not JSON."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from llama_vision.core.messages import Message, Text, ToolCall, ToolResult


def replace_invalid_tool_calls(
    messages: Sequence[Message], is_valid: Callable[[ToolCall], bool]
) -> Iterator[Message]:
    """Turn calls that are not valid into text, one line each, and their results into user messages."""
    invalid_ids: set[str | None] = set()  # so far: an id may come again in a later turn
    for message in messages:
        calls = [part for part in message.parts if isinstance(part, ToolCall)]
        invalid = [call for call in calls if not is_valid(call)]
        invalid_ids = (invalid_ids - {call.id for call in calls}) | {call.id for call in invalid}
        match message.parts:
            case _ if invalid:
                others = [part for part in message.parts if part not in calls]
                valid = [call for call in calls if call not in invalid]
                yield replace(message, parts=(*others, *_describe_calls(invalid, message.text), *valid))
            case (ToolResult() as result,) if result.call_id in invalid_ids:
                yield Message("user", result.parts)
            case _:
                yield message


def _describe_calls(calls: Sequence[ToolCall], text: str) -> list[Text]:
    """Describe calls, except those that the message's text contains already, as the model wrote them."""
    lines = [
        f"I called {call.name} with arguments that can't be read: {call.arguments}"
        for call in calls
        if not (call.arguments.strip() and call.name in text and call.arguments in text)
    ]
    return [Text("\n" * bool(text) + "\n".join(lines))] if lines else []
