"""Structured-output session: a state machine from replies to a validated value, a retry or a failure."""

import contextlib
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pydantic_core import from_json

from llama_vision.core.messages import Message, Text, ToolCall
from llama_vision.core.reply import Reply
from llama_vision.structured.extract import append_instructions, retry_message
from llama_vision.structured.method import StructuredOutputPlan
from llama_vision.structured.output_schema import parse_json

_MAX_QUOTED = 200
"""Characters of the output in an error's text."""

_GROWTH = 1 / 256
"""Relative growth of partial output before it is parsed again: parsing a long one for each token is quadratic."""

_Block = TypeVar("_Block")


class StructuredOutputSession:
    """One structured-output call and its retries. It does no I/O and knows no framework.

    Send the prompt with the plan's instructions and options, hand in the reply, and while `done` is False send it again
    with `retry_messages` after it.

    Attributes:
        plan: How the output is requested and validated.
        retry_messages: Messages after the prompt in the next request: earlier outputs and their errors.
        done: Whether there is nothing more to send.
        json: The last reply's JSON, parsed, whole or partial; None if there is none.
        value: The validated value; None until a reply is valid.
        error: What was wrong with the last reply, for the user to read; None if it is valid.
        cause: The error behind `error`; pydantic's own if a class refused.
        output: The last reply's output as the model wrote it: text, or the arguments of its tool call.
        last_partial: The last partial value that was returned.
    """

    def __init__(self, plan: StructuredOutputPlan) -> None:
        self.plan = plan
        self.retry_messages: tuple[Message, ...] = ()
        self.done = False
        self.json: Any = None
        self.value: Any = None
        self.error: str | None = None
        self.cause: BaseException | None = None
        self.output = ""
        self.last_partial: Any = None
        self._num_attempts = 0
        self._parsed_length = 0

    def add_reply(self, reply: Reply) -> None:
        """Validate a reply, and decide whether to retry; a truncated one is not retried."""
        self._num_attempts += 1
        self._parsed_length = 0
        self.json = self.value = self.error = self.cause = None
        self.output = self._output(reply)
        try:
            self.json = self._parse(reply)
            self.value = self.plan.schema.validate(self.json, validates_dicts=self.plan.validates_dicts)
        except ValueError as error:
            problem = str(error)
            cut_off = reply.finish_reason == "length"
            self.error = self._error_text(problem, cut_off=cut_off)
            self.cause = error.__cause__ or error
            if not cut_off and self._num_attempts <= self.plan.max_retries:
                if self.output.strip():
                    self.retry_messages += (Message("assistant", (Text(self.output),)),)
                self.retry_messages += (Message("user", (Text(retry_message(problem)),)),)
                return
        self.done = True

    def partial(self, reply: Reply) -> Any:
        """Parse a reply that is still being streamed; None if nothing is new. See `OutputSchema.parse_partial`."""
        calls = reply.tool_calls if self.plan.method == "function_calling" else ()
        text = (self._call(reply) or calls[0]).arguments if calls else reply.text
        if self._parsed_length <= len(text) <= int(self._parsed_length * (1 + _GROWTH)):
            return None
        self._parsed_length = len(text)
        partial = _parse_partial_json(text, "{" if self.plan.schema.is_object else "{[")
        value = None if partial is None else self.plan.schema.parse_partial(partial)
        if value is None or value == self.last_partial:
            return None
        self.json, self.last_partial = partial, value
        return value

    def _call(self, reply: Reply) -> ToolCall | None:
        """Find the tool call that carries the output."""
        if self.plan.method != "function_calling":
            return None
        return next((call for call in reply.tool_calls if call.name == self.plan.schema.name), None)

    def _output(self, reply: Reply) -> str:
        if call := self._call(reply):
            return _arguments(call, reply.finish_reason)
        if self.plan.method == "function_calling" and reply.tool_calls and not reply.text.strip():
            return _arguments(reply.tool_calls[0], reply.finish_reason)
        return reply.text

    def _parse(self, reply: Reply) -> Any:
        called = self.plan.method != "function_calling" or self._call(reply) is not None
        if not called and not reply.text.strip():
            raise ValueError(f"{self.plan.schema.name} was not called.")
        # Also text in place of a call: some models write the arguments there.
        return parse_json(self.output, truncated=reply.finish_reason == "length")

    def _error_text(self, problem: str, *, cut_off: bool) -> str:
        name, output = self.plan.schema.name, self.output
        quoted = repr(output if len(output) <= _MAX_QUOTED else f"{output[:_MAX_QUOTED]}...")
        if cut_off:
            return (
                f"The reply was cut off at max_tokens before the {name} was complete: raise max_tokens. "
                f"It was: {quoted}"
            )
        attempts = "" if self._num_attempts == 1 else f", asked {self._num_attempts} times"
        method = f"(method {self.plan.method!r})"
        return f"The reply does not fit {name} {method}{attempts}: {problem}\nIt was: {quoted}"


def append_to_last_text(
    blocks: Sequence[_Block],
    instructions: str,
    *,
    text_of: Callable[[_Block], str | None],
    to_block: Callable[[str], _Block],
) -> list[_Block]:
    """Append instructions to the last text of a message's blocks, and return the new blocks.

    An image behind that text stays last: only a trailing image is moved to the front.

    Args:
        blocks: The message's content; not modified.
        instructions: The text to append.
        text_of: Returns the text of a block; None if it is not text.
        to_block: Makes a block of text.
    """
    added = list(blocks)
    for index in reversed(range(len(added))):
        if (text := text_of(added[index])) is not None:
            added[index] = to_block(append_instructions(text, instructions))
            return added
    return [*added, to_block(instructions)]


def _arguments(call: ToolCall, finish_reason: str | None) -> str:
    """Format arguments as `json.dumps` does, which is all that some frameworks keep of them; invalid ones stay."""
    if finish_reason == "length" and not call.arguments.strip():
        return call.arguments  # cut off before they began: that is no empty object
    try:
        return json.dumps(call.parsed(), ensure_ascii=False)
    except (ValueError, RecursionError):
        return call.arguments


def _parse_partial_json(text: str, brackets: str) -> Any:
    """Parse the beginning of JSON, at the first of each bracket."""
    for start in sorted(set(map(text.find, brackets)) - {-1}):
        with contextlib.suppress(ValueError):
            return from_json(text[start:], allow_inf_nan=False, allow_partial="trailing-strings")
    return None
