"""Lines of a script: text, tool calls, objects, answers, failures, or functions of the request."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from llama_vision.core.messages import ToolCall
from llama_vision.core.usage import Usage
from llama_vision.testing.received import ReceivedRequest


@dataclass(frozen=True, slots=True)
class Answer:
    """One scripted reply in full.

    Attributes:
        text: Its text.
        tool_calls: Its tool calls; `tool_call` makes them.
        finish_reason: Such as `length`; None takes `stop`, or `tool_calls` where there are any.
        usage: Its token counts; None counts 10 for the prompt and one for each word of the text. `Usage()` reports
            none, as some servers do.
        pause_s: Seconds before each chunk of a streamed reply, and before a whole one.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """An error status in place of a reply.

    Attributes:
        status: Such as 401 (a wrong key), 402 (no credit left), 429 (too many calls) or 500.
        message: The error's text.
        retry_after_s: The `Retry-After` header in seconds; None sends none, and clients take their own back-off.
    """

    status: int
    message: str = "Scripted failure"
    retry_after_s: float | None = 0.0

    def __post_init__(self) -> None:
        if not 400 <= self.status <= 599:  # noqa: PLR2004 - HTTP's error statuses
            raise ValueError(f"A failure has a status from 400 to 599, and not {self.status}.")


ScriptLine: TypeAlias = str | ToolCall | Mapping[str, Any] | Answer | Failure
"""Text; one tool call; an object, sent as JSON; or a reply in full."""

ScriptEntry: TypeAlias = ScriptLine | Callable[[ReceivedRequest], ScriptLine]
"""A line, or a function from the request to a line."""


def tool_call(name: str, /, **arguments: Any) -> ToolCall:
    """Make a tool call for a script.

    Args:
        name: The tool's name.
        **arguments: Its arguments, which have to be JSON serialisable.

    Returns:
        The call. For invalid JSON make a `ToolCall` yourself.
    """
    return ToolCall(None, name, json.dumps(arguments, ensure_ascii=False))


def to_scripted_reply(line: ScriptLine) -> Answer | Failure:
    """Expand a line of a script; a line of another type raises TypeError."""
    match line:
        case Answer() | Failure():
            return line
        case str():
            return Answer(line)
        case ToolCall():
            return Answer(tool_calls=(line,))
        case Mapping():
            return Answer(json.dumps(dict(line), ensure_ascii=False))
        case _:  # users' lines are not type-checked
            raise TypeError(
                f"A script holds text, tool calls, objects, Answer and Failure, and not {line!r}."
            )
