"""JSON in text: the instructions that request it, its extraction, and the message that requests it again."""

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Any

from llama_vision.core.errors import UnsupportedInputError

_FENCE = re.compile(r"```[\w+-]*(.*?)(?:```|\Z)", re.DOTALL)
_OPENING = re.compile(r"[{\[]")
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[{}\[\]]', re.DOTALL)

_MAX_UNCLOSED = 16
"""Each unclosed bracket costs a scan to the end of the text."""


def schema_instructions(schema: Mapping[str, Any]) -> str:
    """Return the prompt text that requests JSON of a schema.

    Raises:
        UnsupportedInputError: The schema can't be written as JSON.
    """
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UnsupportedInputError(f"The schema can't be written as JSON: {error}.") from error
    return (
        "Answer with one JSON value and nothing else: no explanation, no code fence. "
        "It must be an instance of this JSON schema, not the schema itself:\n"
        f"{text}"
    )


def append_instructions(text: str, instructions: str) -> str:
    """Append instructions to the user's text, where small models heed them most."""
    return f"{text}\n\n{instructions}" if text.strip() else instructions


def retry_message(error: str) -> str:
    """Return the user message that requests invalid output again, with the error."""
    return f"That answer does not fit:\n{error}\nAnswer again with the corrected JSON alone."


def extract_json(text: str, *, truncated: bool = False) -> str:
    """Extract JSON from a reply, in linear time: from JSON alone, in a code fence, or with text around it.

    If the reply was cut off (`truncated`), what is inside an unclosed bracket is only a part of the JSON.

    Returns:
        The whole text if it is JSON; else the first object (or list, if there is no object) that parses, those in code
        fences first; else the first object with balanced brackets, so that an error can point into it; else the text,
        stripped.
    """
    whole = text.strip()
    if _is_json(whole):
        return whole
    attempts = 1 if truncated else _MAX_UNCLOSED
    everywhere = list(_iter_balanced(whole, attempts))
    valid = [match for match in everywhere if _is_json(match[1])]
    fenced = [part for fence in _fences(whole, valid) for _, part in _iter_balanced(fence, attempts)]
    for candidates in ([part for part in fenced if _is_json(part)], [part for _, part in valid]):
        if candidates:  # a reference such as "[1]" is a list too, so objects go first
            return next((part for part in candidates if "{" in part), candidates[0])
    parts = (*fenced, *(part for _, part in everywhere))
    return next((part for part in parts if part.startswith("{")), whole)


def _fences(text: str, valid: list[tuple[int, str]]) -> Iterator[str]:
    """Iterate over the contents of code fences, but for those inside of JSON: its strings may hold backticks."""
    starts = [start for start, _ in valid]
    for fence in _FENCE.finditer(text):
        before = bisect_right(starts, fence.start()) - 1
        if before < 0 or fence.start() >= starts[before] + len(valid[before][1]):
            yield fence[1]


def _is_json(text: str) -> bool:
    try:
        json.loads(text, strict=False)  # models write line breaks into strings
    except (ValueError, RecursionError):
        return False
    return True


def _iter_balanced(text: str, attempts: int) -> Iterator[tuple[int, str]]:
    """Iterate over bracketed substrings with their starts, from left to right, until `attempts` brackets were unclosed."""
    position = 0
    for _ in range(attempts):
        while (opening := _OPENING.search(text, position)) is not None:
            end = _find_closing(text, opening.start())
            if end is None:
                position = opening.end()
                break
            yield opening.start(), text[opening.start() : end]
            position = end
        else:
            return


def _find_closing(text: str, start: int) -> int | None:
    """Find the end of the bracket at `start`; brackets in strings don't count."""
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(text, start):
        if token[0] in ("{", "["):
            depth += 1
        elif token[0] in ("}", "]"):
            depth -= 1
            if depth == 0:
                return token.end()
    return None
