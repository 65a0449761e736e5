"""Keeps tool calls whose arguments can't be read from being run.

LangChain completes the arguments of streamed calls: `{"path": "/ho`, cut off at max_tokens, would become a call with
{"path": "/ho"}, and {"count": 1,, } one with {"count": 1}. An ending that makes its reader give up is all that keeps such
a call among `invalid_tool_calls`.
"""

import re

from llama_vision.core.messages import ToolCall

_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*("?)|[{}\[\]]', re.DOTALL)


def check_arguments_begun(arguments: str, finish_reason: str | None) -> None:
    """Refuse arguments that were cut off before they began: without a cut, none written means that there are none.

    Raises:
        ValueError: They were cut off.

    """
    if finish_reason == "length" and not arguments.strip():
        raise ValueError("The reply was cut off before the arguments: raise max_tokens.")


def invalidating_suffix(arguments: str, finish_reason: str) -> str:
    """Find what to add to the arguments of a call after its last piece.

    Args:
        arguments: All that the model wrote.
        finish_reason: Why it ended.

    Returns:
        Nothing for a JSON object. Else a bracket that closes nothing, which no reader repairs, and a word for people.

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
    )  # LangChain sees none only in a text that is empty


def _mismatched_bracket(text: str) -> str:
    """Close the string that is open at the end, if one is, and then the bracket that is not."""
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
