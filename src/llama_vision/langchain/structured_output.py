"""Answers of a given form from a LangChain chat model: asked for, checked, and asked for again where they don't fit."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.utils import ConfigurableFieldSpec
from langchain_core.utils.function_calling import convert_to_openai_tool
from typing_extensions import override

from llama_vision.langchain.asking import (
    StructuredMethod,
    StructuredOutputPlan,
    StructuredOutputSession,
    merge_chunks,
)
from llama_vision.providers import Provider
from llama_vision.structured.extract import MAX_OUTPUT_RETRIES
from llama_vision.structured.method import StructuredMethodError, best_method, parse_method
from llama_vision.structured.output_schema import OutputSchema


class StructuredOutputRunnable(Runnable[LanguageModelInput, Any]):
    """A chat model whose answers are objects; what `with_structured_output` returns."""

    def __init__(self, bound: Runnable[LanguageModelInput, AIMessage], plan: StructuredOutputPlan) -> None:
        """Take the model.

        Args:
            bound: The model, with all that makes its provider keep to the form.
            plan: How it is asked.

        """
        self.bound = bound
        self.plan = plan
        self.name = "StructuredOutput"

    @property
    @override
    def InputType(self) -> Any:
        return self.bound.InputType

    @property
    @override
    def OutputType(self) -> Any:
        schema = self.plan.form.schema
        return schema if isinstance(schema, type) and not self.plan.include_raw else dict[str, Any]

    @property
    @override
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        return self.bound.config_specs

    @override
    def invoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return self._call_with_config(self._invoke, input, config, **kwargs)

    @override
    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Any:
        return await self._acall_with_config(self._ainvoke, input, config, **kwargs)

    def _invoke(
        self,
        prompt: LanguageModelInput,
        run_manager: CallbackManagerForChainRun,  # noqa: ARG002 - LangChain passes it
        config: RunnableConfig,
        **kwargs: Any,
    ) -> Any:
        asking = StructuredOutputSession(self.plan, prompt)
        while not asking.done:
            asking.add_reply(self.bound.invoke(asking.prompt, config, **kwargs))
        return asking.result()

    async def _ainvoke(
        self,
        prompt: LanguageModelInput,
        run_manager: AsyncCallbackManagerForChainRun,  # noqa: ARG002 - as above
        config: RunnableConfig,
        **kwargs: Any,
    ) -> Any:
        asking = StructuredOutputSession(self.plan, prompt)
        while not asking.done:
            asking.add_reply(await self.bound.ainvoke(asking.prompt, config, **kwargs))
        return asking.result()

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
        yield from self._transform_stream_with_config(input, self._stream, config, **kwargs)

    @override
    async def atransform(
        self, input: AsyncIterator[LanguageModelInput], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncGenerator[Any]:
        parts = self._atransform_stream_with_config(input, self._astream, config, **kwargs)
        async with contextlib.aclosing(cast("AsyncGenerator[Any]", parts)):
            async for part in parts:
                yield part

    def _stream(
        self,
        inputs: Iterator[LanguageModelInput],
        run_manager: CallbackManagerForChainRun,  # noqa: ARG002 - LangChain passes it
        config: RunnableConfig,
        **kwargs: Any,
    ) -> Iterator[Any]:
        asking = StructuredOutputSession(self.plan, merge_chunks(list(inputs)))
        while not asking.done:
            chunks = cast("Generator[AIMessageChunk]", self.bound.stream(asking.prompt, config, **kwargs))
            with contextlib.closing(chunks):
                for chunk in chunks:
                    yield from asking.partial_results(chunk)
            asking.add_reply(asking.merged_message())
        yield from asking.final_results()

    async def _astream(
        self,
        inputs: AsyncIterator[LanguageModelInput],
        run_manager: AsyncCallbackManagerForChainRun,  # noqa: ARG002 - as above
        config: RunnableConfig,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        asking = StructuredOutputSession(self.plan, merge_chunks([one async for one in inputs]))
        while not asking.done:
            chunks = cast(
                "AsyncGenerator[AIMessageChunk]", self.bound.astream(asking.prompt, config, **kwargs)
            )
            async with contextlib.aclosing(chunks):
                async for chunk in chunks:
                    for part in asking.partial_results(chunk):
                        yield part
            asking.add_reply(asking.merged_message())
        for part in asking.final_results():
            yield part


def plan_structured_output(
    schema: dict[str, Any] | type | None,
    method: str,
    provider: Provider,
    model: str,
    *,
    include_raw: bool,
    strict: bool | None,
) -> StructuredOutputPlan:
    """Decide how to ask for answers.

    Args:
        schema: A pydantic class, a TypedDict, or a JSON schema; None, for `json_mode`, takes any JSON.
        method: One of `StructuredMethod`. With `auto` and `prompt` all answers are checked, and asked for again.
        provider: Who is asked.
        model: Which model.
        include_raw: Whether the message comes with what was made of it.
        strict: Whether the provider is told to keep to the schema; None says nothing.

    Returns:
        The plan.

    Raises:
        StructuredMethodError: The method is not known, or does not go with the other arguments.
        ValueError: LangChain can't read the schema.

    """
    asked = parse_method(method)
    if strict is not None and asked == "json_mode":
        raise StructuredMethodError(
            "strict says how closely to keep to a schema, of which json_mode knows nothing."
        )
    if schema is None and asked != "json_mode":
        raise StructuredMethodError(f"method={asked!r} needs a schema; only json_mode does without.")
    checked = asked in ("auto", "prompt")
    form = OutputSchema.from_schema(schema, validates_dicts=checked, strict=strict)
    way: StructuredMethod = best_method(provider, model) if asked == "auto" else asked
    if asked == "auto" and way == "function_calling" and not form.is_object:
        way = "prompt"
    return StructuredOutputPlan(
        form=form,
        method=way,
        adds_instructions=checked and way != "function_calling",
        max_retries=MAX_OUTPUT_RETRIES if checked else 0,
        include_raw=include_raw,
    )


def bind_method(
    model: BaseChatModel, plan: StructuredOutputPlan, strict: bool | None, options: dict[str, Any]
) -> Runnable[LanguageModelInput, AIMessage]:
    """Bind to a model what makes its provider keep to the form.

    Args:
        model: The model.
        plan: How it is asked.
        strict: As in `plan_structured_output`.
        options: Further arguments of each call.

    Returns:
        The model, bound.

    """
    form = plan.form
    if form.schema is not None:  # for LangSmith, which shows it; LangChain takes it off before the request
        shown = {"kwargs": {"method": plan.method, "strict": strict}, "schema": form.schema}
        options = {"ls_structured_output_format": shown, **options}
    match plan.method:
        case "function_calling":
            tool = convert_to_openai_tool(form.json_schema or {}, strict=strict)
            tool["function"]["name"] = form.name
            return model.bind_tools([tool], tool_choice="any", **options)
        case "json_schema":
            details: dict[str, Any] = {"name": form.name, "schema": form.json_schema}
            if strict is not None:
                details["strict"] = strict
            wanted: dict[str, Any] = {"type": "json_schema", "json_schema": details}
            return model.bind(response_format=wanted, **options)
        case "json_mode":
            return model.bind(response_format={"type": "json_object"}, **options)
        case "prompt":
            return model.bind(**options)
