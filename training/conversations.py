"""Conversations to learn from, in tokens, written by the package's own prompt format.

What the model reads later is made by the same code, `llama_vision.backends.local.chat_template`, so there can be no difference.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING

from llama_vision.backends.local.chat_template import (
    IMAGE_TOKEN,
    PromptPart,
    SpecialToken,
    apply_chat_template,
)
from llama_vision.core.messages import Image, Message, Part, Text, ToolCall, ToolResult
from llama_vision.core.request import ChatRequest, Tool
from llama_vision.structured.extract import schema_instructions
from training import tools, words
from training.canvas import Drawing
from training.questions import Asker

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SYSTEMS = (
    "You are a helpful assistant.",
    "Answer briefly.",
    "You are a helpful assistant. Answer briefly.",
    "Be concise.",
    "You look at pictures.",
    "Be kind.",
)
_IMAGE = Image(data=b"a place for a picture")
_ERRANDS = 8
"""How many more errands a talk with tools has at most, so that it is as long as it may be."""


@dataclass(slots=True)
class Lesson:
    """Tokens, and which of them the model has to learn to write.

    Attributes:
        ids: The tokens.
        taught: For each, whether it is the model's.

    """

    ids: list[int] = field(default_factory=list[int])
    taught: list[bool] = field(default_factory=list[bool])


class Teacher:
    """Writes conversations as lessons.

    Args:
        tokenizer: Into whose tokens.
        chance: Draws the lots.

    """

    def __init__(self, tokenizer: "Tokenizer", chance: Random) -> None:
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._chance = chance
        self._asker = Asker(chance, careless=True)
        self._headers: dict[str, list[int]] = {}
        self._end = self._control("<|eot_id|>")
        self._ids = lru_cache(256)(self._encoded)  # a conversation is written once for each of its turns

    def about_image(self, drawing: Drawing, longest: int) -> Lesson:
        """Ask several questions about one image, in one conversation."""
        return self._asked(Lesson(), drawing, longest)

    def with_tools(self, longest: int) -> Lesson:
        """Have tools called, in words alone, and tell their results: one errand after the other, until it is long enough."""
        lot = self._chance.random()
        if lot < 0.1:
            offered, asked, answer = tools.idle(self._chance)
            turns = [_user(asked), _said(answer)]
        elif lot < 0.25:
            offered, turns = self._chain()
        else:
            offered, errand = tools.wanted(self._chance, most=3)
            turns = self._done(errand)
        for _ in range(_ERRANDS):
            turns += self._another(offered)
        return self._dialogue(turns, offered, longest)

    def with_words(self, longest: int) -> Lesson:
        """Talk without tools."""
        asked, answer, _ = words.talk(self._chance)
        system = self._chance.choice(_SYSTEMS) if self._chance.random() < 0.4 else ""
        turns = [Message("system", (Text(system),))] if system else []
        lesson = self._dialogue([*turns, _user(asked), _said(answer)], (), longest)
        while len(lesson.ids) <= longest:
            before = len(lesson.ids)
            self._turn(lesson, *words.talk(self._chance)[:2])
        del lesson.ids[before:], lesson.taught[before:]
        return lesson

    def with_tools_and_image(self, drawing: Drawing, longest: int) -> Lesson | None:
        """Have a tool called with what an image shows, then ask about it; None where it shows nothing to call one with."""
        errand = tools.image_errand(self._chance, drawing)
        if errand is None:
            return None
        lesson = self._dialogue(self._done(errand, _IMAGE), [errand.tool], longest)
        return self._asked(lesson, drawing, longest)

    def with_schema(self, drawing: Drawing, longest: int) -> Lesson | None:
        """Have an answer given in the form of a JSON schema that stands in the question, then ask on."""
        errand = tools.image_errand(self._chance, drawing)
        if errand is None:
            return None
        schema = {**errand.tool.parameters}
        if self._chance.random() < 0.7:
            schema["title"] = words.invented(self._chance).capitalize()
        asked = self._chance.choice(
            ("Describe the picture.", "What do you see?", "What is this?", "Describe it.", "Look.", "")
        )
        asked = f"{asked}\n\n{schema_instructions(schema)}".strip()
        answer = errand.call.split('"parameters": ', 1)[1][:-1]
        lesson = self._dialogue([_user(asked, _IMAGE), _said(answer)], (), longest)
        return self._asked(lesson, drawing, longest)

    def _asked(self, lesson: Lesson, drawing: Drawing, longest: int) -> Lesson:
        """Add questions about an image, as many as there is room for."""
        heard = set[str]()
        for _ in range(10):
            question = self._asker.ask(drawing)
            if question is None or question.text in heard:
                continue
            before = len(lesson.ids)
            self._turn(lesson, question.text, question.answer, image=not before)
            if len(lesson.ids) > longest:
                del lesson.ids[before:], lesson.taught[before:]
            else:
                heard.add(question.text)
        return lesson

    def _chain(self) -> tuple[list[Tool], list[Message]]:
        offered, asked, errands, results, told = tools.chain(self._chance)
        turns = [_user(asked)]
        for errand, result in zip(errands, results, strict=True):
            turns += [_call(errand), _returned(result)]
        return offered, [*turns, _said(told)]

    def _done(self, errand: tools.Errand, *images: Image) -> list[Message]:
        """Have an errand done, and its result told."""
        returned, told = tools.answered(self._chance)
        return [_user(errand.asked, *images), _call(errand), _returned(returned), _said(told)]

    def _another(self, offered: Sequence[Tool]) -> list[Message]:
        """Go on with small talk, or an errand for one of the tools."""
        if self._chance.random() < 0.15:
            asked, answer = words.small_talk(self._chance)
            return [_user(asked), _said(answer)]
        return self._done(tools.errand_with(self._chance, self._chance.choice(offered)))

    def _dialogue(self, turns: Sequence[Message], offered: Sequence[Tool], longest: int) -> Lesson:
        """Write a conversation up to a length; all that the assistant says is taught."""
        lesson = Lesson()
        for place, turn in enumerate(turns):
            if turn.role == "assistant" and len(lesson.ids) < longest:
                request = ChatRequest("tiny", tuple(turns[:place]), tools=tuple(offered))
                prompt = self._tokens(apply_chat_template(request))
                said = self._tokens(apply_chat_template(replace(request, messages=tuple(turns[: place + 1]))))
                answer = said[len(prompt) : len(said) - len(self._header("assistant"))]
                _extend(lesson, prompt[len(lesson.ids) :], taught=False)
                _extend(lesson, answer, taught=True)
        del lesson.ids[longest:], lesson.taught[longest:]
        return lesson

    def _turn(self, lesson: Lesson, asked: str, answer: str, *, image: bool = False) -> None:
        """Add a question and its answer; with an image, begin with it."""
        if image:
            if self._chance.random() < 0.08:
                asked = f"{self._chance.choice(_SYSTEMS)}\n\n{asked}"
            parts: tuple[Part, ...] = (_IMAGE, Text(asked))
            if self._chance.random() < 0.05:
                parts = parts[::-1]
            request = ChatRequest("tiny", (Message("user", parts),))
            _extend(lesson, self._tokens(apply_chat_template(request)), taught=False)
        else:
            turn = [*self._header("user"), *self._ids(asked), self._end, *self._header("assistant")]
            _extend(lesson, turn, taught=False)
        _extend(lesson, [*self._ids(answer), self._end], taught=True)

    def _header(self, role: str) -> list[int]:
        if role not in self._headers:
            pieces = [SpecialToken("<|start_header_id|>"), role, SpecialToken("<|end_header_id|>"), "\n\n"]
            self._headers[role] = self._tokens(pieces)
        return self._headers[role]

    def _tokens(self, pieces: Sequence[PromptPart]) -> list[int]:
        ids: list[int] = []
        for piece in pieces:
            if isinstance(piece, str):
                ids += self._ids(piece)
            else:
                ids.append(self._control((piece if isinstance(piece, SpecialToken) else IMAGE_TOKEN).token))
        return ids

    def _encoded(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def _control(self, token: str) -> int:
        number = self._tokenizer.token_to_id(token)
        assert number is not None
        return number


def _extend(lesson: Lesson, ids: Sequence[int], *, taught: bool) -> None:
    lesson.ids += ids
    lesson.taught += [taught] * len(ids)


def _user(text: str, *images: Image) -> Message:
    return Message("user", (*images, Text(text)))


def _said(text: str) -> Message:
    return Message("assistant", (Text(text),))


def _call(errand: tools.Errand) -> Message:
    arguments = errand.call.split('"parameters": ', 1)[1][:-1]
    return Message("assistant", (ToolCall("call", errand.tool.name, arguments),))


def _returned(text: str) -> Message:
    return Message("tool", (ToolResult("call", (Text(text),)),))
