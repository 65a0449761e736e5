"""Citations of pages and images, such as `report.pdf, p. 7`, in prompts and in answers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from llama_vision.core.messages import Image

ANSWER_PROMPT = """\
You are given these sources, the images in this order:

{context}

Answer the question from them only, and cite the source of each fact in brackets, such as [report.pdf, p. 7]. \
If the answer is in none of them, say so.

Question: {question}"""
"""The prompt beside found images; `FoundSources` has the `context`."""


def citation(name: str, page: int | str | None = None) -> str:
    """Name a source.

    Args:
        name: The file's name.
        page: The page, or None of an image that is none.

    Returns:
        Such as `report.pdf, p. 7`, or `cat.png`.
    """
    return name if page is None else f"{name}, p. {page}"


@dataclass(slots=True)
class FoundSources:
    """What a retriever found, as a model is shown it: each image once, and texts.

    Attributes:
        images: The images, in the order found.
        citations: Of all that was found, in its order.
    """

    images: list[Image] = field(default_factory=list[Image])
    citations: list[str] = field(default_factory=list[str])
    _image_entries: dict[Image, tuple[list[str], str]] = field(
        default_factory=dict[Image, tuple[list[str], str]]
    )
    _texts: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def add(self, name: str, text: str, image: Image | None) -> None:
        """Add a source.

        Args:
            name: Its citation.
            text: A page's text layer, or the text of what has no image.
            image: The image; one that was added before is shown once, under both citations.
        """
        self.citations.append(name)
        if image is None:
            self._texts.append((name, text))
        elif image in self._image_entries:
            self._image_entries[image][0].append(name)
        else:
            self.images.append(image)
            self._image_entries[image] = [name], text

    @property
    def context(self) -> str:
        """The sources with their texts, for a prompt."""
        entries = enumerate(self._image_entries.values(), start=1)
        images = [
            f"Image {number}: {'; '.join(dict.fromkeys(names))}\n{text}" for number, (names, text) in entries
        ]
        return "\n\n".join(
            entry.strip() for entry in [*images, *(f"Text: {name}\n{text}" for name, text in self._texts)]
        )


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
