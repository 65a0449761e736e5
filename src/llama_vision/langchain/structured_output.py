"""Structured output as a LangChain runnable: validated, retried and streamed by `llama_vision.structured`."""

import contextlib
import operator
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from functools import reduce
from typing import Any, cast

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, convert_to_messages
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.utils import AddableDict, ConfigurableFieldSpec
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel
from typing_extensions import override

from llama_vision.core.events import TextDelta, ToolCallDelta
from llama_vision.core.json_types import as_mapping
from llama_vision.core.messages import ToolCall
from llama_vision.core.reply import Reply, ReplyBuilder
from llama_vision.langchain.convert import invalid_tool_calls, valid_tool_calls
from llama_vision.structured.method import StructuredOutputPlan
from llama_vision.structured.output_schema import OutputSchema
from llama_vision.structured.session import StructuredOutputSession, append_to_last_text

_TOOL_KEYS = frozenset({"name", "function", "toolSpec"})
"""What tells a tool of OpenAI's, Anthropic's or Bedrock's from a JSON schema."""


class StructuredOutputRunnable(Runnable[LanguageModelInput, Any]):
    """A chat model whose replies are objects; what `with_structured_output` returns."""

    def __init__(
        self,
        bound: Runnable[LanguageModelInput, AIMessage],
        plan: StructuredOutputPlan,
        schema: dict[str, Any] | type | None,
        *,
        include_raw: bool,
    ) -> None:
        self.bound = bound
        self.plan = plan
        self.schema = schema
        self.include_raw = include_raw
        self.name = "StructuredOutput"

    @property
    @override
    def InputType(self) -> Any:
        return self.bound.InputType

    @property
    @override
    def OutputType(self) -> Any:
        return self.schema if isinstance(self.schema, type) and not self.include_raw else dict[str, Any]

    @property
    @override
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        return self.bound.config_specs

    @override
    def invoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return self._call_with_config(cast("Any", self._invoke), input, config, **kwargs)

    @override
    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Any:
        return await self._acall_with_config(cast("Any", self._ainvoke), input, config, **kwargs)

    def _start(self, prompt: LanguageModelInput) -> "_StructuredRun":
        return _StructuredRun(self.plan, prompt, include_raw=self.include_raw)

    def _invoke(self, prompt: LanguageModelInput, config: RunnableConfig, **kwargs: Any) -> Any:
        run = self._start(prompt)
        while not run.session.done:
            run.add_message(self.bound.invoke(run.prompt, config, **kwargs))
        return run.result()

    async def _ainvoke(self, prompt: LanguageModelInput, config: RunnableConfig, **kwargs: Any) -> Any:
        run = self._start(prompt)
        while not run.session.done:
            run.add_message(await self.bound.ainvoke(run.prompt, config, **kwargs))
        return run.result()

    @override
    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        yield from self.transform(iter([input]), config, **kwargs)

    @override
    async def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        async def inputs() -> AsyncIterator[LanguageModelInput]:
            yield input

        async with contextlib.aclosing(self.atransform(inputs(), config, **kwargs)) as parts:
            async for part in parts:
                yield part

    @override
    def transform(
        self, input: Iterator[LanguageModelInput], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        yield from self._transform_stream_with_config(input, cast("Any", self._stream), config, **kwargs)

    @override
    async def atransform(
        self, input: AsyncIterator[LanguageModelInput], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncGenerator[Any]:
        parts = self._atransform_stream_with_config(input, cast("Any", self._astream), config, **kwargs)
        async with contextlib.aclosing(cast("AsyncGenerator[Any]", parts)):
            async for part in parts:
                yield part

    def _stream(self, inputs: Iterator[Any], config: RunnableConfig, **kwargs: Any) -> Iterator[Any]:
        run = self._start(reduce(operator.add, inputs))
        while not run.session.done:
            chunks = cast("Generator[AIMessageChunk]", self.bound.stream(run.prompt, config, **kwargs))
            with contextlib.closing(chunks):
                for chunk in chunks:
                    yield from run.partial_results(chunk)
            run.end_stream()
        yield from run.final_results()

    async def _astream(
        self, inputs: AsyncIterator[Any], config: RunnableConfig, **kwargs: Any
    ) -> AsyncIterator[Any]:
        run = self._start(reduce(operator.add, [chunk async for chunk in inputs]))
        while not run.session.done:
            chunks = cast("AsyncGenerator[AIMessageChunk]", self.bound.astream(run.prompt, config, **kwargs))
            async with contextlib.aclosing(chunks):
                async for chunk in chunks:
                    for part in run.partial_results(chunk):
                        yield part
            run.end_stream()
        for part in run.final_results():
            yield part


class RawAndParsed(AddableDict):
    """A chunk of `{"raw", "parsed", "parsing_error"}`; all chunks add up to what `invoke` returns."""

    @override
    def __add__(self, other: AddableDict) -> "RawAndParsed":
        total = RawAndParsed({**self, **other})
        mine, others = self.get("raw"), other.get("raw")
        if isinstance(mine, AIMessageChunk) and isinstance(others, AIMessageChunk) and mine.id == others.id:
            total["raw"] = mine + others  # another id is another reply, after a retry
        return total


class _StructuredRun:
    """One call of the runnable: a session with LangChain's messages."""

    def __init__(self, plan: StructuredOutputPlan, prompt: LanguageModelInput, *, include_raw: bool) -> None:
        self.session = StructuredOutputSession(plan)
        self._prompt = prompt
        if plan.instructions:
            self._prompt = _append_instructions(_to_messages(prompt), plan.instructions)
        self._include_raw = include_raw
        self._raw: AIMessage | None = None
        self._chunks: list[AIMessageChunk] = []
        self._streamed = ReplyBuilder()

    @property
    def prompt(self) -> LanguageModelInput:
        """The next request's prompt."""
        if not self.session.retry_messages:
            return self._prompt
        retries = [
            AIMessage(retry.text) if retry.role == "assistant" else HumanMessage(retry.text)
            for retry in self.session.retry_messages
        ]
        return [*_to_messages(self._prompt), *retries]

    def add_message(self, message: AIMessage, calls: tuple[ToolCall, ...] = ()) -> None:
        """Add a whole reply, with its tool calls as the model wrote them, if they are known."""
        self._raw = message
        calls = calls or (*valid_tool_calls(message), *invalid_tool_calls(message))
        finish_reason = message.response_metadata.get("finish_reason")
        self.session.add_reply(Reply(message.text, calls, finish_reason=finish_reason))

    def partial_results(self, chunk: AIMessageChunk) -> Iterator[Any]:
        """Add a chunk of a reply, and yield what is new."""
        self._chunks.append(chunk)
        for event in _delta_events(chunk):
            self._streamed.add(event)
        parsed = self.session.partial(self._streamed.reply())
        if self._include_raw:
            yield RawAndParsed(raw=chunk) if parsed is None else RawAndParsed(raw=chunk, parsed=parsed)
        elif parsed is not None:
            yield parsed

    def end_stream(self) -> None:
        """End a streamed reply. A model with streaming disabled yields its message as the only chunk."""
        first, *others = self._chunks
        message = add_ai_message_chunks(first, *others) if others else first
        self.add_message(message, self._streamed.tool_calls)
        self._chunks, self._streamed = [], ReplyBuilder()

    def result(self) -> Any:
        """Return what `invoke` returns, or raise `OutputParserException` unless `include_raw` is set."""
        session = self.session
        error = OutputParserException(session.error, llm_output=session.output) if session.error else None
        if self._include_raw:
            return {"raw": self._raw, "parsed": session.value, "parsing_error": error}
        if error is not None:
            raise error from session.cause
        return session.value

    def final_results(self) -> Iterator[Any]:
        """Yield the end of a stream; see `result`."""
        result = self.result()
        if self._include_raw:
            yield RawAndParsed(parsed=result["parsed"], parsing_error=result["parsing_error"])
        elif self.session.last_partial is None or result != self.session.last_partial:
            yield result


def to_output_schema(schema: Any, *, strict: bool | None) -> OutputSchema:
    """Read a pydantic class of version 1 or 2, a TypedDict, a JSON schema, or a tool in another company's format.

    Raises:
        ValueError: It is none of these.
    """
    if schema is None or (isinstance(schema, type) and issubclass(schema, BaseModel) and not strict):
        return OutputSchema.from_schema(schema)
    if isinstance(schema, dict):
        plain = OutputSchema.from_schema(cast("object", schema))
        schema = dict(plain.json_schema or {})
        if not schema.keys() & _TOOL_KEYS:
            if not (strict and "properties" in schema):
                return plain  # LangChain's conversion loses lists
            schema = _titled(plain)
    is_class = isinstance(schema, type) and is_basemodel_subclass(schema)
    return OutputSchema(
        convert_to_json_schema(schema, strict=strict), cast("Any", schema) if is_class else None
    )


def bind_structured_output(
    model: BaseChatModel,
    plan: StructuredOutputPlan,
    schema: dict[str, Any] | type | None,
    options: dict[str, Any],
    *,
    include_raw: bool,
    strict: bool | None,
) -> StructuredOutputRunnable:
    """Bind a plan's options and further options of each call to a model; see `with_structured_output`."""
    bound = plan.merge_options(options)
    if isinstance(schema, dict):
        schema = _titled(plan.schema)
    if schema is not None:  # for LangSmith, which displays it; LangChain takes it off before the request
        kwargs = {"method": plan.method, "strict": strict}
        bound = {"ls_structured_output_format": {"kwargs": kwargs, "schema": schema}, **bound}
    return StructuredOutputRunnable(model.bind(**bound), plan, schema, include_raw=include_raw)


def _titled(schema: OutputSchema) -> dict[str, Any]:
    """Return the JSON schema with a title, which LangChain's conversions require."""
    return {"title": "answer", **(schema.json_schema or {})}


def _to_messages(prompt: LanguageModelInput) -> list[BaseMessage]:
    if isinstance(prompt, PromptValue):
        return prompt.to_messages()
    return [HumanMessage(prompt)] if isinstance(prompt, str) else convert_to_messages(prompt)


def _append_instructions(messages: list[BaseMessage], instructions: str) -> list[BaseMessage]:
    """Append to the user's last text; the messages are not modified."""
    *before, last = messages or [HumanMessage("")]
    if not isinstance(last, HumanMessage):
        return [*messages, HumanMessage(instructions)]
    content = cast("Any", last.content)
    added = append_to_last_text(
        [content] if isinstance(content, str) else list(content),
        instructions,
        text_of=_block_text,
        to_block=lambda text: text if isinstance(content, str) else {"type": "text", "text": text},
    )
    return [*before, last.model_copy(update={"content": added[0] if isinstance(content, str) else added})]


def _block_text(block: object) -> str | None:
    if isinstance(block, str):
        return block
    spec = as_mapping(block)
    return str(spec.get("text") or "") if spec.get("type") in ("text", "text-plain") else None


def _delta_events(chunk: AIMessage) -> Iterator[TextDelta | ToolCallDelta]:
    """Undo `ChunkConverter`, but for the suffix that keeps arguments invalid: it is not the model's."""
    yield TextDelta(chunk.text)
    if isinstance(chunk, AIMessageChunk) and chunk.chunk_position != "last":
        for call in chunk.tool_call_chunks:
            yield ToolCallDelta(call["index"] or 0, call["id"], call["name"], call["args"] or "")
