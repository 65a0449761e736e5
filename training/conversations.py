"""Training conversations as tokens, rendered with the package's own chat template.

Inference uses the same code, `llama_vision.backends.local.chat_template`, so the two can't differ.
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
"""Max further errands of a conversation with tools, so that it fills its length."""


@dataclass(slots=True)
class TrainingExample:
    """Token ids with a loss mask.

    Attributes:
        ids: The token ids.
        loss_mask: For each, whether it is the model's own and counts for the loss.
    """

    ids: list[int] = field(default_factory=list[int])
    loss_mask: list[bool] = field(default_factory=list[bool])


class ConversationWriter:
    """Writes conversations as training examples.

    Args:
        tokenizer: The tokenizer.
        chance: The random generator.
    """

    def __init__(self, tokenizer: "Tokenizer", chance: Random) -> None:
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._chance = chance
        self._asker = Asker(chance, careless=True)
        self._headers: dict[str, list[int]] = {}
        self._end = self._control("<|eot_id|>")
        self._ids = lru_cache(256)(self._encoded)  # a conversation is written once for each of its turns

    def about_image(self, drawing: Drawing, longest: int) -> TrainingExample:
        """Ask several questions about one image, in one conversation."""
        return self._asked(TrainingExample(), drawing, longest)

    def with_tools(self, longest: int) -> TrainingExample:
        """Write tool calls and their results without an image: errands until it is long enough."""
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

    def with_words(self, longest: int) -> TrainingExample:
        """Write a text-only conversation without tools."""
        asked, answer, _ = words.talk(self._chance)
        system = self._chance.choice(_SYSTEMS) if self._chance.random() < 0.4 else ""
        turns = [Message("system", (Text(system),))] if system else []
        example = self._dialogue([*turns, _user(asked), _said(answer)], (), longest)
        while len(example.ids) <= longest:
            before = len(example.ids)
            self._turn(example, *words.talk(self._chance)[:2])
        del example.ids[before:], example.loss_mask[before:]
        return example

    def with_tools_and_image(self, drawing: Drawing, longest: int) -> TrainingExample | None:
        """Write a tool call with arguments from an image, then questions about it; None where it shows no arguments."""
        errand = tools.image_errand(self._chance, drawing)
        if errand is None:
            return None
        example = self._dialogue(self._done(errand, _IMAGE), [errand.tool], longest)
        return self._asked(example, drawing, longest)

    def with_schema(self, drawing: Drawing, longest: int) -> TrainingExample | None:
        """Write a reply that follows a JSON schema in the question, then further questions."""
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
        example = self._dialogue([_user(asked, _IMAGE), _said(answer)], (), longest)
        return self._asked(example, drawing, longest)

    def _asked(self, example: TrainingExample, drawing: Drawing, longest: int) -> TrainingExample:
        """Add questions about an image, as many as there is room for."""
        heard = set[str]()
        for _ in range(10):
            question = self._asker.ask(drawing)
            if question is None or question.text in heard:
                continue
            before = len(example.ids)
            self._turn(example, question.text, question.answer, image=not before)
            if len(example.ids) > longest:
                del example.ids[before:], example.loss_mask[before:]
            else:
                heard.add(question.text)
        return example

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

    def _dialogue(self, turns: Sequence[Message], offered: Sequence[Tool], longest: int) -> TrainingExample:
        """Render a conversation up to a length; the assistant's tokens count for the loss."""
        example = TrainingExample()
        for place, turn in enumerate(turns):
            if turn.role == "assistant" and len(example.ids) < longest:
                request = ChatRequest("tiny", tuple(turns[:place]), tools=tuple(offered))
                prompt = self._tokens(apply_chat_template(request))
                said = self._tokens(apply_chat_template(replace(request, messages=tuple(turns[: place + 1]))))
                answer = said[len(prompt) : len(said) - len(self._header("assistant"))]
                _extend(example, prompt[len(example.ids) :], is_target=False)
                _extend(example, answer, is_target=True)
        del example.ids[longest:], example.loss_mask[longest:]
        return example

    def _turn(self, example: TrainingExample, asked: str, answer: str, *, image: bool = False) -> None:
        """Add a question and its answer; with an image, begin with it."""
        if image:
            if self._chance.random() < 0.08:
                asked = f"{self._chance.choice(_SYSTEMS)}\n\n{asked}"
            parts: tuple[Part, ...] = (_IMAGE, Text(asked))
            if self._chance.random() < 0.05:
                parts = parts[::-1]
            request = ChatRequest("tiny", (Message("user", parts),))
            _extend(example, self._tokens(apply_chat_template(request)), is_target=False)
        else:
            turn = [*self._header("user"), *self._ids(asked), self._end, *self._header("assistant")]
            _extend(example, turn, is_target=False)
        _extend(example, [*self._ids(answer), self._end], is_target=True)

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


def _extend(example: TrainingExample, ids: Sequence[int], *, is_target: bool) -> None:
    example.ids += ids
    example.loss_mask += [is_target] * len(ids)


def _user(text: str, *images: Image) -> Message:
    return Message("user", (*images, Text(text)))


def _said(text: str) -> Message:
    return Message("assistant", (Text(text),))


def _call(errand: tools.Errand) -> Message:
    arguments = errand.call.split('"parameters": ', 1)[1][:-1]
    return Message("assistant", (ToolCall("call", errand.tool.name, arguments),))


def _returned(text: str) -> Message:
    return Message("tool", (ToolResult("call", (Text(text),)),))
