"""Structured output with LlamaIndex's messages: validated, retried and streamed by `llama_vision.structured`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ContentBlock,
    MessageRole,
    TextBlock,
)
from llama_index.core.program.utils import create_flexible_model
from pydantic import BaseModel

from llama_vision.core.json_types import as_mapping
from llama_vision.llamaindex.convert import to_reply
from llama_vision.llamaindex.errors import StructuredOutputError
from llama_vision.structured.method import StructuredOutputPlan
from llama_vision.structured.session import StructuredOutputSession, append_to_last_text

_Model = TypeVar("_Model", bound=BaseModel)

_PROGRAM_OPTIONS = frozenset(
    {
        *("tool_required", "tool_choice", "allow_parallel_tool_calls"),
        *("error_on_no_tool_call", "error_on_tool_error"),
    }
)
"""Options that LlamaIndex's programs drop too: they force the tool in any case."""


class StructuredPrediction(Generic[_Model]):
    """One prediction of an object: a structured-output session with LlamaIndex's messages. It does no I/O."""

    def __init__(
        self,
        output_cls: type[_Model],
        plan: StructuredOutputPlan,
        messages: Sequence[ChatMessage],
        options: Mapping[str, Any],
        *,
        retries: bool = True,
    ) -> None:
        """Start a prediction of `output_cls`, whose plan may retry if `retries` is set; `messages` are not modified.

        Raises:
            UnsupportedInputError: The options of `chat` set what the plan sets.
        """
        schema = replace(plan.schema, partial_class=create_flexible_model(output_cls))
        max_retries = plan.max_retries if retries else 0
        self._session = StructuredOutputSession(replace(plan, schema=schema, max_retries=max_retries))
        self._options = plan.merge_options(
            {name: value for name, value in options.items() if name not in _PROGRAM_OPTIONS}
        )
        self._messages = _append_instructions(messages, plan.instructions)

    @property
    def call(self) -> dict[str, Any]:
        """Arguments of the next `chat`."""
        retries = (ChatMessage(role=one.role, content=one.text) for one in self._session.retry_messages)
        return {"messages": [*self._messages, *retries], **self._options}

    @property
    def text(self) -> str:
        """The object's JSON, as far as it has come."""
        return json.dumps(self._session.json, ensure_ascii=False)

    def partial(self, response: ChatResponse) -> BaseModel | None:
        """Parse the snapshot of a stream; None if nothing is new.

        Returns an instance of the class once it validates; until then of LlamaIndex's flexible copy of the class, whose fields
        are optional and of any type.
        """
        return self._session.partial(to_reply(response))

    def read(self, response: ChatResponse) -> _Model | None:
        """Validate the response to `call`; None to retry: `call` then includes what was wrong.

        Raises:
            StructuredOutputError: The reply doesn't validate, and there is no retry left.
        """
        session = self._session
        session.add_reply(to_reply(response))
        if session.done and session.error is not None:
            raw = as_mapping(response.raw)
            error = StructuredOutputError(session.error)
            raise error.with_context(raw.get("provider") or "", raw.get("model")) from session.cause
        return session.value


def _append_instructions(messages: Sequence[ChatMessage], instructions: str) -> list[ChatMessage]:
    """Append to the last user message, or as a new one; what was given is not modified."""
    if not instructions:
        return list(messages)
    if not messages or messages[-1].role is not MessageRole.USER:
        return [*messages, ChatMessage(role=MessageRole.USER, content=instructions)]
    blocks: list[ContentBlock] = append_to_last_text(
        messages[-1].blocks,
        instructions,
        text_of=lambda block: block.text if isinstance(block, TextBlock) else None,
        to_block=lambda text: TextBlock(text=text),
    )
    return [*messages[:-1], messages[-1].model_copy(update={"blocks": blocks})]
