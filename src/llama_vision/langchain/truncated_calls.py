"""Keeps truncated and malformed tool calls among `invalid_tool_calls`.

LangChain completes the arguments of streamed calls: `{"path": "/ho`, cut off at max_tokens, would become a call with
{"path": "/ho"}, and {"count": 1,, } one with {"count": 1}. Only a suffix that its parser can't repair prevents that.
"""

import re

from llama_vision.core.messages import ToolCall

_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*("?)|[{}\[\]]', re.DOTALL)


def check_arguments_begun(arguments: str, finish_reason: str | None) -> None:
    """Refuse arguments that were cut off before they began; otherwise empty text is an empty object.

    Raises:
        ValueError: They were cut off.
    """
    if finish_reason == "length" and not arguments.strip():
        raise ValueError("The reply was cut off before the arguments: raise max_tokens.")


def invalidating_suffix(arguments: str, finish_reason: str) -> str:
    """Return what to append to arguments that are no JSON object: a mismatched bracket, which no parser repairs, and a note."""
    try:
        check_arguments_begun(arguments, finish_reason)
        ToolCall(None, "", arguments).parsed()
    except ValueError:
        note = " (cut off)" if finish_reason == "length" else " (unreadable)"
        return _mismatched_bracket(arguments) + note
    # LangChain takes only empty text for no arguments.
    return "{}" if arguments and not arguments.strip() else ""


def _mismatched_bracket(text: str) -> str:
    """Close an open string, then a bracket that is not open."""
    opened: list[str] = []
    start = ""
    for token in _STRING_OR_BRACKET.finditer(text):
        if token[0] in ("{", "["):
            opened.append(token[0])
        elif token[0] in ("}", "]"):
            del opened[-1:]
        elif not token[1]:
            escapes = token.end() < len(text)  # a lone backslash at the very end
            start = '\\"' if escapes else '"'
    return start + ("}" if opened and opened[-1] == "[" else "]")
