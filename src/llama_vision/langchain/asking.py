"""One question until its answer fits: what is asked next, and what became of it, the same for every way to call."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    convert_to_messages,
)
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables.utils import AddableDict
from pydantic_core import from_json
from typing_extensions import override

from llama_vision.core.json_types import as_mapping
from llama_vision.structured.extract import retry_message, schema_instructions
from llama_vision.structured.output_schema import OutputSchema

_STEP = 1 / 256
"""By how much an answer grows before it is read again: reading all of a long one for each word takes longer than the model."""

StructuredMethod: TypeAlias = Literal["json_schema", "function_calling", "json_mode", "prompt"]


@dataclass(frozen=True, slots=True)
class StructuredOutputPlan:
    """How answers are asked for.

    Attributes:
        form: What they are to be.
        method: The method, chosen.
        adds_instructions: Whether the schema is put into the prompt.
        max_retries: How often an answer that does not fit is asked for again.
        include_raw: Whether the message comes with what was made of it, and an error in place of being raised.

    """

    form: OutputSchema
    method: StructuredMethod
    adds_instructions: bool
    max_retries: int
    include_raw: bool


class RawAndParsed(AddableDict):
    """A piece of `{"raw", "parsed", "parsing_error"}`; all pieces add up to what `invoke` gives."""

    @override
    def __add__(self, other: AddableDict) -> "RawAndParsed":
        total = RawAndParsed({**self, **other})
        mine, others = self.get("raw"), other.get("raw")
        if isinstance(mine, AIMessageChunk) and isinstance(others, AIMessageChunk) and mine.id == others.id:
            total["raw"] = mine + others  # another id is another answer, to the question asked again
        return total


class StructuredOutputSession:
    """One question, in progress.

    Attributes:
        prompt: What the model is asked next.
        done: Whether there is nothing more to ask.

    """

    def __init__(self, plan: StructuredOutputPlan, prompt: LanguageModelInput) -> None:
        """Begin with what the user asks."""
        self._plan = plan
        self._left = plan.max_retries
        self._raw: AIMessage | None = None
        self._parsed: Any = None
        self._error: OutputParserException | None = None
        self._growing = _PartialOutput(plan)
        self._shown: Any = None
        self.done = False
        self.prompt = prompt
        if plan.adds_instructions and plan.form.json_schema is not None:
            self.prompt = _append_instructions(_messages(prompt), schema_instructions(plan.form.json_schema))

    def add_reply(self, message: AIMessage) -> None:
        """Look at an answer, and decide whether to ask again."""
        self._raw, self._parsed, self._error = message, None, None
        self._growing = _PartialOutput(self._plan)
        try:
            self._parsed = _read(self._plan, message)
        except ValueError as error:
            cut_off = message.response_metadata.get("finish_reason") == "length"
            answer = _answer(self._plan, message)
            self._error = _failure(self._plan, str(error), answer, cut_off=cut_off)
            if self._left and not cut_off:
                self._left -= 1
                said = [AIMessage(answer)] if answer.strip() else []
                self.prompt = [*_messages(self.prompt), *said, HumanMessage(retry_message(str(error)))]
                return
        self.done = True

    def result(self) -> Any:
        """Give what `invoke` returns.

        Raises:
            OutputParserException: No answer fitted, and it was not asked for the raw message.

        """
        if self._plan.include_raw:
            return {"raw": self._raw, "parsed": self._parsed, "parsing_error": self._error}
        if self._error is not None:
            raise self._error
        return self._parsed

    def partial_results(self, chunk: AIMessageChunk) -> Iterator[Any]:
        """Take in a piece of an answer, and give what can be shown now."""
        parsed = self._growing.add(chunk)
        news = parsed is not None and parsed != self._shown
        if self._plan.include_raw:
            yield RawAndParsed(raw=chunk, parsed=parsed) if news else RawAndParsed(raw=chunk)
        elif news:
            yield parsed
        if news:
            self._shown = parsed

    def merged_message(self) -> AIMessage:
        """Add up the pieces of an answer."""
        return self._growing.message()

    def final_results(self) -> Iterator[Any]:
        """Give what is shown in the end; see `result`."""
        result = self.result()
        if self._plan.include_raw:
            yield RawAndParsed(parsed=result["parsed"], parsing_error=result["parsing_error"])
        elif self._shown is None or result != self._shown:
            yield result


class _PartialOutput:
    """An answer that comes in pieces."""

    def __init__(self, plan: StructuredOutputPlan) -> None:
        self._plan = plan
        self._chunks: list[AIMessageChunk] = []
        self._call: int | None = None
        self._text = ""
        self._next_parse_at = 1.0

    def add(self, chunk: AIMessageChunk) -> Any:
        """Take in a piece; give what the answer is so far, None where that can't be said."""
        self._chunks.append(chunk)
        self._text += self._new_text(chunk)
        if len(self._text) < self._next_parse_at:
            return None
        self._next_parse_at = len(self._text) * (1 + _STEP) + 1
        start = min((at for at in map(self._text.find, "{[") if at >= 0), default=0)
        try:
            value = from_json(self._text[start:], allow_partial="trailing-strings")
            return self._plan.form.parse_partial(value)
        except ValueError:
            return None

    def message(self) -> AIMessage:
        """Add up all pieces. Where the model was told not to stream, the one piece is the message."""
        first, *others = self._chunks
        return add_ai_message_chunks(first, *others) if others else first

    def _new_text(self, chunk: AIMessageChunk) -> str:
        if self._plan.method != "function_calling":
            return chunk.text
        pieces = getattr(chunk, "tool_call_chunks", ())
        if self._call is None and pieces:
            self._call = pieces[0]["index"]
        return "".join(piece["args"] or "" for piece in pieces if piece["index"] == self._call)


def _read(plan: StructuredOutputPlan, message: AIMessage) -> Any:
    """Make of an answer what the user wants; ValueError tells the model what is wrong."""
    if plan.method != "function_calling":
        return plan.form.parse(message.text)
    for call in message.tool_calls:
        if call["name"] == plan.form.name:
            return plan.form.validate(call["args"])
    if message.invalid_tool_calls:
        raise ValueError("The arguments are not JSON.")
    if (
        plan.max_retries and message.text.strip()
    ):  # a model that ignores tools may have written the answer all the same
        return plan.form.parse(message.text)
    raise ValueError(f"{plan.form.name} was not called.")


def _answer(plan: StructuredOutputPlan, message: AIMessage) -> str:
    """Find what the model wrote, as text."""
    if plan.method == "function_calling":
        for call in message.tool_calls:
            return json.dumps(call["args"], ensure_ascii=False)
        for call in message.invalid_tool_calls:
            return call["args"] or ""
    return message.text


def _failure(
    plan: StructuredOutputPlan, problem: str, answer: str, *, cut_off: bool
) -> OutputParserException:
    if cut_off:
        text = (
            f"The answer was cut off before it was a whole {plan.form.name}: raise max_tokens. "
            f"({problem}) It was: {answer}"
        )
    else:
        text = (
            f"The answer does not fit {plan.form.name} (method {plan.method!r}): {problem}\nIt was: {answer}"
        )
    return OutputParserException(text, llm_output=answer)


def _messages(prompt: LanguageModelInput) -> list[BaseMessage]:
    if isinstance(prompt, PromptValue):
        return prompt.to_messages()
    return [HumanMessage(prompt)] if isinstance(prompt, str) else convert_to_messages(prompt)


def _append_instructions(messages: list[BaseMessage], instructions: str) -> list[BaseMessage]:
    """Add to the last words of the user, where small models heed it most; nothing given is changed."""
    *before, last = messages or [HumanMessage("")]
    if not isinstance(last, HumanMessage):
        return [*messages, HumanMessage(instructions)]
    if isinstance(last.content, str):
        content: Any = f"{last.content}\n\n{instructions}".strip()
    else:
        content = list(cast("list[Any]", last.content))
        # Not simply last: an image at the end would then no longer count as one that goes before all words.
        words = [place for place, block in enumerate(content) if _is_text(block)]
        content.insert(
            words[-1] + 1 if words else len(content), {"type": "text", "text": f"\n\n{instructions}"}
        )
    return [*before, last.model_copy(update={"content": content})]


def _is_text(block: object) -> bool:
    return isinstance(block, str) or as_mapping(block).get("type") == "text"


def merge_chunks(inputs: Sequence[Any]) -> Any:
    """Add up an input that came in pieces."""
    total = inputs[0]
    for one in inputs[1:]:
        total = total + one
    return total
