"""What a script is made of: answers, tool calls, failures, or functions that look at the request first."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from llama_vision.core.messages import ToolCall
from llama_vision.core.usage import Usage
from llama_vision.testing.received import ReceivedRequest


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, with all there is to say about it.

    Attributes:
        text: The words.
        tool_calls: The tools it asks for; `tool_call` makes them.
        finish_reason: Why it ended, such as `length`; None takes what fits, `stop` or `tool_calls`.
        usage: What it consumed; None makes up 10 tokens for the prompt and one for each word of the text. `Usage()` tells
            nothing, as some servers do.
        pause_s: Seconds before each piece of a streamed answer, and before a whole one.

    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """An error in place of an answer.

    Attributes:
        status: Such as 401 (a wrong key), 402 (no credit left), 429 (too many calls) or 500.
        message: What the server says.
        retry_after_s: The seconds that callers are asked to wait before they try again; None asks for nothing, and
            they wait as long as they do by themselves.

    """

    status: int
    message: str = "Scripted failure"
    retry_after_s: float | None = 0.0

    def __post_init__(self) -> None:
        if not 400 <= self.status <= 599:  # noqa: PLR2004 - where HTTP's errors begin and end
            raise ValueError(f"A failure has a status from 400 to 599, and not {self.status}.")


ScriptLine: TypeAlias = str | ToolCall | Mapping[str, Any] | Answer | Failure
"""Words; a call of one tool; an object, which is said as its JSON; or more than that."""

ScriptEntry: TypeAlias = ScriptLine | Callable[[ReceivedRequest], ScriptLine]
"""What one request gets, or a function that decides it."""


def tool_call(name: str, /, **arguments: Any) -> ToolCall:
    """Ask for a tool.

    Args:
        name: The tool's name.
        **arguments: Its arguments; they have to be such as JSON knows.

    Returns:
        The call. For arguments that are no JSON make a `ToolCall` yourself.

    """
    return ToolCall(None, name, json.dumps(arguments, ensure_ascii=False))


def to_scripted_reply(line: ScriptLine) -> Answer | Failure:
    """Say in full what was written in short.

    Args:
        line: Of a script.

    Returns:
        The answer.

    Raises:
        TypeError: It is nothing that can be said.

    """
    match line:
        case Answer() | Failure():
            return line
        case str():
            return Answer(line)
        case ToolCall():
            return Answer(tool_calls=(line,))
        case Mapping():
            return Answer(json.dumps(dict(line), ensure_ascii=False))
        case _:  # what users write is not always what the types say
            raise TypeError(
                f"A script holds text, tool calls, objects, Answer and Failure, and not {line!r}."
            )
