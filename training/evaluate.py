"""Measures the tiny model's accuracy on held-out images: `make evaluate`.

Decoding is greedy, through the package's public interface, and a reply has to match exactly. Seeds differ from training. "Plain" images
are square and their shapes filled and upright; the others have any size, outlines and rotated shapes. "Unheard" questions have phrasings
held out from training.
"""

import argparse
import asyncio
import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from llama_vision.backends.local import LocalBackend
from llama_vision.core.messages import Image, Message, Text, ToolCall, ToolResult
from llama_vision.core.reply import Reply
from llama_vision.core.request import ChatRequest, SamplingParams, Tool, ToolChoice
from llama_vision.providers import find_provider
from training import tools, words
from training.canvas import Drawing
from training.images import chart, scene
from training.questions import Asker
from training.signs import UNSEEN_WORDS, WORDS, number_text, random_letters, sign

_CONCURRENCY = 32
_SEED = 987_654_321
_MARK, _END = "<!-- figures: make evaluate -->", "<!-- end of figures -->"


@dataclass(frozen=True, slots=True)
class Case:
    """One question to the model.

    Attributes:
        request: The request.
        right: Tells whether a reply is right.
    """

    request: ChatRequest
    right: Callable[[Reply], bool]


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy of one kind of question.

    Attributes:
        name: The kind; its questions are drawn with a seed made of it.
        share: Fraction of right replies.
        goal: Target; None where there is none.
        count: Number of questions.
    """

    name: str
    share: float
    goal: float | None
    count: int


class Examiner:
    """Makes the questions.

    Args:
        model: `tiny`, or a folder.
        count: Number of questions of each kind.
    """

    def __init__(self, model: str, count: int) -> None:
        self._model, self._count = model, count

    def kinds(self) -> Iterator[tuple[str, float | None, Callable[[Random], Case | None]]]:
        """Give the name of each kind of question, its goal, and what makes one."""
        yield from self._about_scenes()
        yield from self._about_signs()
        for kind in ("bars", "tallest", "shortest"):
            yield f"chart: {kind}", None, self._asked(kind, chart)
        yield from self._with_tools()
        for kind in ("echo", "name", "json"):
            yield f"said back: {kind}", None, lambda chance, kind=kind: self._talk(chance, kind)

    def cases(self, name: str, make: Callable[[Random], Case | None]) -> list[Case]:
        """Make the questions of a kind; the same ones every time."""
        chance = Random(f"{_SEED} {name}")
        made: list[Case] = []
        while len(made) < self._count:
            if (case := make(chance)) is not None:
                made.append(case)
        return made

    def _about_scenes(self):
        goals = {
            "color": 0.99,
            "shape": 0.99,
            "exists": 0.99,
            "count_all": 0.98,
            "count_shape": 0.98,
            "count_color": 0.98,
            "where": 0.95,
            "json": 0.95,
            "describe": None,
            "at": None,
        }
        for kind, goal in goals.items():
            yield f"plain scene: {kind}", goal, self._asked(kind, lambda chance: scene(chance, plain=True))
            yield f"any scene: {kind}", None, self._asked(kind, scene)
        for kind in ("color", "shape", "exists", "count_shape", "where"):
            yield f"any scene, unheard: {kind}", None, self._asked(kind, scene, unheard=True)
        for kind in ("color", "shape"):
            yield (
                f"pair never trained: {kind}",
                None,
                self._asked(kind, lambda chance: scene(chance, unseen=True, count=1)),
            )

    def _about_signs(self):
        texts = {
            "digits": (0.99, number_text),
            "known words": (0.98, lambda chance: chance.choice(WORDS)),
            "random letters": (0.8, random_letters),
            "words never trained": (None, lambda chance: chance.choice(UNSEEN_WORDS)),
        }
        for name, (goal, text) in texts.items():
            yield (
                f"plain sign: {name}",
                goal,
                self._asked("read", lambda chance, text=text: sign(chance, text=text(chance), plain=True)),
            )
            yield (
                f"any sign: {name}",
                None,
                self._asked("read", lambda chance, text=text: sign(chance, text=text(chance))),
            )
        for kind in ("sign_color", "json", "describe"):
            yield f"any sign: {kind}", None, self._asked(kind, sign)
        yield "any sign, unheard: read", None, self._asked("read", sign, unheard=True)

    def _with_tools(self):
        yield "tools: name", 0.95, lambda chance: self._called(chance, whole=False)
        yield "tools: name and arguments", 0.95, self._called
        yield "tools, call forced: name and arguments", 0.98, lambda chance: self._called(chance, forced=True)
        yield "tools: answer after the result", None, self._told
        yield "tools: not needed", None, self._idle
        yield "tools: with a picture", None, self._called_with_image

    def _asked(self, kind, draw: Callable[[Random], Drawing], *, unheard=False):
        def make(chance: Random) -> Case | None:
            drawing = draw(chance)
            question = Asker(chance, unheard=unheard).ask(drawing, kind)
            if question is None:
                return None
            request = self._request(Message("user", (_image(drawing), Text(question.text))))
            return Case(request, lambda reply: reply.text.strip() == question.answer)

        return make

    def _talk(self, chance, kind):
        asked, answer, drawn = words.talk(chance)
        if drawn != kind:
            return None
        return Case(self._request(_user(asked)), lambda reply: reply.text.strip() == answer)

    def _called(self, chance, *, whole=True, forced=False):
        offered, errand = tools.wanted(chance, most=2)
        choice = ToolChoice("required") if forced else None
        request = self._request(_user(errand.asked), offered=offered, choice=choice)
        return Case(request, lambda reply: _is_call(reply, errand, whole=whole))

    def _called_with_image(self, chance):
        drawing = chance.choice((sign, lambda lots: scene(lots, count=1)))(chance)
        errand = tools.image_errand(chance, drawing)
        assert errand is not None
        request = self._request(Message("user", (_image(drawing), Text(errand.asked))), offered=[errand.tool])
        return Case(request, lambda reply: _is_call(reply, errand, whole=True))

    def _told(self, chance):
        errand = tools.errand(chance)
        returned, told = tools.answered(chance)
        call = ToolCall("1", errand.tool.name, json.dumps(errand.arguments, ensure_ascii=False))
        turns = [
            _user(errand.asked),
            Message("assistant", (call,)),
            Message("tool", (ToolResult("1", (Text(returned),)),)),
        ]
        return Case(self._request(*turns, offered=[errand.tool]), lambda reply: reply.text.strip() == told)

    def _idle(self, chance):
        offered, asked, answer = tools.idle(chance)
        return Case(self._request(_user(asked), offered=offered), lambda reply: reply.text.strip() == answer)

    def _request(
        self, *turns: Message, offered: Sequence[Tool] = (), choice: ToolChoice | None = None
    ) -> ChatRequest:
        sampling = SamplingParams(max_tokens=160, temperature=0)
        return ChatRequest(
            self._model,
            turns,
            tools=tuple(offered),
            tool_choice=choice,
            sampling=sampling,
            text_tool_calls=True,
        )


def scores(model: str = "tiny", count: int = 200, only: str = "") -> Iterator[Score]:
    """Ask everything.

    Args:
        model: `tiny`, or a folder.
        count: How many questions of each kind.
        only: Just those kinds whose name holds this.

    Yields:
        What each kind came to.
    """
    examiner = Examiner(model, count)
    for name, goal, make in examiner.kinds():
        if only in name:
            cases = examiner.cases(name, make)
            yield Score(name, sum(asyncio.run(_asked(cases))) / count, goal, count)


async def _asked(cases: Sequence[Case]) -> list[bool]:
    backend, free = LocalBackend(find_provider("local")), asyncio.Semaphore(_CONCURRENCY)

    async def right(case: Case) -> bool:
        async with free:
            return case.right(await backend.acomplete(case.request))

    return await asyncio.gather(*map(right, cases))


def _is_call(reply: Reply, errand: tools.Errand, *, whole: bool) -> bool:
    if len(reply.tool_calls) != 1 or reply.tool_calls[0].name != errand.tool.name:
        return False
    try:
        return not whole or reply.tool_calls[0].parsed() == errand.arguments
    except ValueError:  # cut off, or no JSON
        return False


def _user(text: str) -> Message:
    return Message("user", (Text(text),))


def _image(drawing: Drawing) -> Image:
    file = io.BytesIO()
    drawing.image.save(file, "PNG")
    return Image(file.getvalue(), "image/png")


def write_card(card: Path, found: Sequence[Score]) -> None:
    """Write figures into a model card, between its marks."""
    rows = [
        f"| {one.name} | {one.share:.1%} | {'' if one.goal is None else f'{one.goal:.0%}'} |" for one in found
    ]
    table = "\n".join(["| question | right | goal |", "|---|---|---|", *rows])
    before, _, rest = card.read_text("utf-8").partition(_MARK)
    after = rest.partition(_END)[2]
    card.write_text(f"{before}{_MARK}\n{table}\n{_END}{after}", "utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the accuracy of each kind of question.

    Returns:
        0 where every goal is met, else 1.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny", help="`tiny`, or a folder")
    parser.add_argument("--count", type=int, default=200, help="how many questions of each kind")
    parser.add_argument("--only", default="", help="just those kinds whose name holds this")
    parser.add_argument("--card", type=Path, help="a model card, to write the figures into")
    given = parser.parse_args(arguments)
    began, found = time.monotonic(), list[Score]()
    for score in scores(given.model, given.count, given.only):
        found.append(score)
        goal = (
            ""
            if score.goal is None
            else f"   goal {score.goal:.1%}{'' if score.share >= score.goal else '  MISSED'}"
        )
        print(f"{score.name:<44} {score.share:6.1%} of {score.count}{goal}", flush=True)
    print(f"{time.monotonic() - began:.0f} s")
    if given.card:
        write_card(given.card, found)
    return int(any(score.goal is not None and score.share < score.goal for score in found))


if __name__ == "__main__":
    raise SystemExit(main())
