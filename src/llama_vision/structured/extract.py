"""Answers that are to be JSON: how they are asked for in words, found among other words, and asked for again."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

MAX_OUTPUT_RETRIES = 2
"""How often an answer that does not fit is asked for again; small models that fail three times go on failing."""

_FENCE = re.compile(r"```[\w+-]*(.*?)(?:```|\Z)", re.DOTALL)
_OPENING = re.compile(r"[{\[]")
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[{}\[\]]', re.DOTALL)

_MAX_UNCLOSED = 16
"""Each bracket that is never closed costs a look at all of the rest, so that is given up after a few."""


def schema_instructions(schema: Mapping[str, Any]) -> str:
    """Say in words what form the answer must have.

    Args:
        schema: JSON schema of the answer.

    Returns:
        What to add to the prompt.

    """
    return (
        "Answer with one JSON value and nothing else: no explanation, no code fence. "
        "It must be an instance of this JSON schema, not the schema itself:\n"
        f"{json.dumps(schema, ensure_ascii=False)}"
    )


def retry_message(error: str) -> str:
    """Say that an answer did not fit.

    Args:
        error: What was wrong with it.

    Returns:
        What to say to the model after its answer.

    """
    return f"That answer does not fit:\n{error}\nAnswer again with the corrected JSON alone."


def extract_json(text: str) -> str:
    """Find the JSON in an answer, in a time proportional to its length.

    Args:
        text: All that the model wrote: JSON alone, in a code fence, or with words around it.

    Returns:
        The whole text if it is JSON; else the first object (or list, where there is no object) that can be read, those
        in code fences first; else the first that has its closing bracket at least, so that an error can point into it;
        else the text without the space around it.

    """
    whole = text.strip()
    if _is_json(whole):
        return whole
    fenced = [found for fence in _FENCE.finditer(whole) for found in _iter_balanced(fence[1])]
    everywhere = list(_iter_balanced(whole))
    for candidates in (fenced, everywhere):
        readable = [found for found in candidates if _is_json(found)]
        if readable:  # a reference such as "[1]" is a list too, so objects go first
            return next((found for found in readable if "{" in found), readable[0])
    return next((found for found in (*fenced, *everywhere) if found.startswith("{")), whole)


def _is_json(text: str) -> bool:
    try:
        json.loads(text, strict=False)  # models write line breaks into strings
    except (ValueError, RecursionError):
        return False
    return True


def _iter_balanced(text: str) -> Iterator[str]:
    """Give the parts of a text that begin with a bracket and end with its closing one, from left to right."""
    position = 0
    for _ in range(_MAX_UNCLOSED):
        while (opening := _OPENING.search(text, position)) is not None:
            end = _find_closing(text, opening.start())
            if end is None:
                position = opening.end()
                break
            yield text[opening.start() : end]
            position = end
        else:
            return


def _find_closing(text: str, start: int) -> int | None:
    """Find where the bracket at `start` is closed; brackets inside of strings don't count."""
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(text, start):
        if token[0] in ("{", "["):
            depth += 1
        elif token[0] in ("}", "]"):
            depth -= 1
            if depth == 0:
                return token.end()
    return None
