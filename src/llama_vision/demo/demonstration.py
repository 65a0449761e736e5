"""The demonstration: questions about images, answered offline through LangChain and through LlamaIndex."""

import asyncio
import base64
import shlex
import sys
import time
from collections.abc import Iterator
from typing import Any

from llama_vision.demo import SAMPLE_IMAGES

# Ours first: without an extra they say what to install.
from llama_vision.langchain import ChatLlamaVision  # isort: split

from llama_vision.llamaindex import LlamaVision, LlamaVisionMultiModal  # isort: split

from langchain_core.messages import HumanMessage
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock

_QUESTIONS = {
    "circle": {
        "What color is the circle?": "blue",
        "Describe the image.": "A blue circle on a white background.",
    },
    "shapes": {
        "How many objects are there?": "4",
        "How many circles are there?": "2",
        "What shape is yellow?": "star",
    },
    "sign": {"What does the sign say?": "EXIT"},
}
"""Questions about each image, and the right answers."""


def main() -> int:
    """Ask all questions, and print them with the replies.

    Returns:
        0 where all replies are right, else 1.
    """
    start = time.monotonic()
    print("provider: local, model: tiny (3.6 million parameters, a toy for demonstration and tests)\n")
    right = [*_langchain(), *_llamaindex()]
    print(f"\n{sum(right)} of {len(right)} right, {time.monotonic() - start:.1f} s. Ask something yourself:")
    print(
        f"  {shlex.quote(sys.executable)} -m llama_vision ask {SAMPLE_IMAGES['shapes']} 'Is there a red star?'"
    )
    return 0 if all(right) else 1


def _langchain() -> Iterator[bool]:
    print("LangChain: ChatLlamaVision().invoke(...)")
    model = ChatLlamaVision(provider="local")
    for name, questions in _QUESTIONS.items():
        image = base64.b64encode(SAMPLE_IMAGES[name].read_bytes()).decode()
        for question, expected in questions.items():
            content: list[str | dict[Any, Any]] = [
                {"type": "image", "base64": image, "mime_type": "image/png"},
                {"type": "text", "text": question},
            ]
            yield _show(name, question, expected, model.invoke([HumanMessage(content)]).text)


def _llamaindex() -> Iterator[bool]:
    print("\nLlamaIndex: LlamaVision().stream_chat(...), a piece at a time")
    model = LlamaVision(provider="local")
    for name, questions in _QUESTIONS.items():
        for question, expected in questions.items():
            blocks = [ImageBlock(path=SAMPLE_IMAGES[name]), TextBlock(text=question)]
            deltas = [response.delta or "" for response in model.stream_chat([ChatMessage(blocks=blocks)])]
            yield _show(name, question, expected, "".join(deltas), "|".join(filter(None, deltas)))
    print("\nLlamaIndex: await LlamaVisionMultiModal().acomplete(question, images)")
    multi_modal = LlamaVisionMultiModal(provider="local")
    answer = asyncio.run(multi_modal.acomplete("What shape is green?", [SAMPLE_IMAGES["shapes"]]))
    yield _show("shapes", "What shape is green?", "cross", answer.text)


def _show(name: str, question: str, expected: str, answer: str, displayed: str | None = None) -> bool:
    mark = "" if answer == expected else f"   WRONG: {expected}"
    print(f"  {name + '.png':<11} {question:<29} {displayed or answer}{mark}")
    return answer == expected
