"""Citations of pages and images, such as `report.pdf, p. 7`, in prompts and in answers."""

import re
from collections.abc import Iterable, Sequence

ANSWER_PROMPT = """\
You are shown these images, in this order:

{context}

Answer the question from the images only, and cite the source of each fact in brackets, such as [{example}]. If the answer is in none of \
them, say so.

Question: {question}"""
"""The prompt beside found images, unless there is another; `citation_context` makes its first part."""


def citation(name: str, page: int | str | None = None) -> str:
    """Name a source.

    Args:
        name: The file's name.
        page: The page, or None of an image that is none.

    Returns:
        Such as `report.pdf, p. 7`, or `cat.png`.
    """
    return name if page is None else f"{name}, p. {page}"


def citation_context(sources: Iterable[tuple[str, str]]) -> str:
    """List what a model is shown.

    Args:
        sources: Of each image the citation, and the page's text layer or an empty text.

    Returns:
        A line for each, with its text below.
    """
    listed = (f"Image {number}: {name}\n{text}" for number, (name, text) in enumerate(sources, start=1))
    return "\n\n".join(entry.strip() for entry in listed)


def cited_in(answer: str, citations: Sequence[str]) -> list[str]:
    """Find out which sources an answer cites.

    Args:
        answer: The answer.
        citations: Those of all images that the model was shown.

    Returns:
        Those that the answer holds, each once; all where it holds none, since the answer was read off all of them.
    """
    shown = list(dict.fromkeys(citations))
    # Not the first characters of another one: "p. 1" stands in "p. 12", too.
    held = [one for one in shown if re.search(rf"(?<!\w){re.escape(one)}(?!\w|, p\. )", answer)]
    return held or shown
