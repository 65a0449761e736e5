"""Keeps truncated and malformed tool calls among `invalid_tool_calls`.

LangChain completes the arguments of streamed calls: `{"path": "/ho`, cut off at max_tokens, would become a call with
{"path": "/ho"}, and {"count": 1,, } one with {"count": 1}. Only a suffix that its parser can't repair prevents that.
"""

import re

from llama_vision.core.messages import ToolCall

_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*("?)|[{}\[\]]', re.DOTALL)


def check_arguments_begun(arguments: str, finish_reason: str | None) -> None:
    """Refuse arguments that were cut off before they began; without a cut, empty text is an empty object.

    Raises:
        ValueError: They were cut off.

    """
    if finish_reason == "length" and not arguments.strip():
        raise ValueError("The reply was cut off before the arguments: raise max_tokens.")


def invalidating_suffix(arguments: str, finish_reason: str) -> str:
    """Find the suffix of a call's arguments.

    Args:
        arguments: All of them.
        finish_reason: The reply's.

    Returns:
        Nothing for a JSON object; else a mismatched bracket, which no parser repairs, and a note for people.

    """
    try:
        check_arguments_begun(arguments, finish_reason)
        ToolCall(None, "", arguments).parsed()
    except ValueError:
        return _mismatched_bracket(arguments) + (
            " (cut off)" if finish_reason == "length" else " (unreadable)"
        )
    return (
        "{}" if arguments and not arguments.strip() else ""
    )  # LangChain takes only empty text for no arguments


def _mismatched_bracket(text: str) -> str:
    """Close an open string, and then a bracket that is not open."""
    opened: list[str] = []
    start = ""
    for token in _STRING_OR_BRACKET.finditer(text):
        match token[0]:
            case "{" | "[":
                opened.append(token[0])
            case "}" | "]":
                if opened:
                    opened.pop()
            case _ if not token[1]:
                escapes = token.end() < len(text)  # a lone backslash at the very end
                start = '\\"' if escapes else '"'
            case _:
                pass
    return start + ("}" if opened and opened[-1] == "[" else "]")
