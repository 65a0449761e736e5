"""`ChatLlamaVision`: Llama 3.2 Vision as a LangChain chat model, wherever it runs."""

import contextlib
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast, overload

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams, LanguageModelInput, ModelProfile
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from pydantic import ConfigDict, Field, field_validator, model_validator
from typing_extensions import override

from llama_vision.adaptation.token_estimate import estimate_text_tokens, estimate_tokens
from llama_vision.backends.model_fields import ApiKeyField, BackendFields, StopField, hide_headers
from llama_vision.core.backend import Backend
from llama_vision.core.call_options import MODEL_OPTIONS, SAMPLING_OPTIONS, parse_tool
from llama_vision.core.errors import LlamaVisionError
from llama_vision.core.reply import Reply
from llama_vision.core.request import ChatRequest
from llama_vision.langchain.api_keys import bind_key, key_from_environment, resolve_key
from llama_vision.langchain.convert import (
    MODEL_PROVIDER,
    ChunkConverter,
    combine_llm_outputs,
    relax_response_format,
    to_message,
    to_messages,
    to_openai_tool,
    to_request,
    to_result,
)
from llama_vision.langchain.errors import TranslateErrors, to_langchain_error
from llama_vision.langchain.profile import DerivedProfile, model_profile
from llama_vision.langchain.translator import register
from llama_vision.providers import Provider
from llama_vision.providers.base_url import resolve_base_url
from llama_vision.providers.defaults import default_model
from llama_vision.providers.route import Route, first_provider, resolve_provider
from llama_vision.structured.method import StructuredMethod, plan_structured_output
from llama_vision.version import __version__

if TYPE_CHECKING:
    from llama_vision.backends.batches import BatchClient, BatchJob, WireBatch

_NO_OPTIONS: Mapping[str, Any] = {}
_REQUEST_FIELDS = MODEL_OPTIONS | {"text_tool_calls"}

_Schema = TypeVar("_Schema")

register()


_Hook = TypeVar("_Hook", bound=Callable[..., Any])


def _keep_signature(hook: _Hook) -> _Hook:
    """Keep the signature of a hook, which LangChain inspects in each call: it takes 20 us to find out."""
    cast("Any", hook).__signature__ = inspect.signature(hook)
    return hook


def _provider_of(fields: dict[str, Any]) -> Provider:
    with TranslateErrors():
        return first_provider(fields.get("provider", "local"))


class ChatLlamaVision(BackendFields, BaseChatModel):
    """A chat model for Llama 3.2 Vision: hosted, behind any OpenAI-compatible endpoint, or on this machine.

    Without arguments it is the tiny model that comes with the package, which knows drawn shapes, colours and short
    signs and needs no key:

        >>> from llama_vision.langchain import ChatLlamaVision
        >>> model = ChatLlamaVision()
        >>> model.invoke("Say hi").text
        'Hi'

    An image is a content block, as everywhere in LangChain:

        model.invoke([HumanMessage([
            {"type": "image", "base64": "...", "mime_type": "image/png"},
            {"type": "text", "text": "What colour is the circle?"},
        ])])

    Every error is one of `llama_vision.core.errors` and one of `langchain_core.exceptions`, so that `except` of either
    kind catches it. With `configurable_fields(provider=..., model_name=...)` the configuration of a call selects provider
    and model; a key is sent to no other company than the one it was given for.

    Args:
        provider: `"local"`, `"deepinfra"`, `"cloudflare"`, or any other that `llama-vision providers` lists, or a
            `Provider` record of your own. A list, or a `Route`, of several: the next one takes over where one fails before
            the first token. Default: `$LLAMA_VISION_PROVIDER`, else `"local"`.
        model: `llama-3.2-11b-vision` and `llama-3.2-90b-vision` become the provider's own ids; anything else is sent
            as it is. Default: `$LLAMA_VISION_MODEL`, else `tiny` for local and the 11B elsewhere.
        api_key: The provider's key, or a function that returns one, such as a token that expires: it is called for each
            call, and once more after a 401. It may be a coroutine function, for asynchronous calls. Default: the
            provider's own environment variables. Without one the first call raises `MissingKeyError`. It is left out of
            pickles, and a model that comes out of one refuses to call without it.
        base_url: In place of the documented URL: everything before `/chat/completions`, or before `/accounts/` for
            Cloudflare.
        account_id: The account, at providers whose URLs contain one. Default: the provider's own variables.
        accept_license: Whether to accept Meta's license on behalf of the account, where the provider asks for it
            (Cloudflare) and it was not yet. Read it first; without this such a call raises `LicenseNotAcceptedError`.
        max_tokens: The maximum number of tokens of a reply. It is always sent: some providers cut at 256 otherwise.
        timeout: Seconds without a byte before a call fails, or an `httpx.Timeout`; None waits for ever. The head of a
            response, a body, and the time between two payloads of a stream may take twice as long in all.
        deadline: Seconds for a whole call: its images, its retries and its reply, a stream to its end.
        max_retries: How often a call with a transient error (no connection, 408, 409, 429, 5xx) is retried, if nothing
            of the reply has arrived.
        stream_usage: False requests no token counts in streams, for servers that refuse that.
        text_tool_calls: False leaves tool calls that the model writes as text in the text.
        extra_body: Fields of the provider's own, sent as they are.
        image_max_pixels: The maximum number of pixels of an image, besides what the model can use: four tiles of
            560 x 560. Larger images are scaled down, none is ever scaled up.
        image_format: `"jpeg"` or `"png"` for images that have to be encoded again; `"auto"` takes JPEG for photographs
            and PNG for drawings and text. A small image of an accepted type is sent byte for byte.
        image_quality: JPEG quality, 1 to 95.
        image_policy: What to do with more images than the provider takes: `"error"`, send the `"first"` ones, or put
            all on one numbered sheet (`"grid"`).
        image_allowed_hosts: The only hosts that images are fetched from, where the provider needs their bytes; they may
            be private. Default: any public host.
        image_private_networks: Whether images may be fetched from addresses that are not public.
        document_max_pages: The maximum number of pages of one PDF or TIFF; more are refused before anything is sent.
        document_text: False shows the pages of a document as images alone, without their text layer.
        local_settings: How a model runs on this machine: `max_batch_size` running sequences, `max_model_len` tokens of
            prompt and reply, `image_cache_bytes` of encoded images, `max_waiting` requests, `device`, `device_map`, `dtype`,
            `quantization` (`int8`, `int4`, `fp8`); see `llama_vision.backends.local.LocalSettings`.
        max_cost_usd: US dollars that all calls of this model may cost together. A call that could exceed it, by an
            estimate with `max_tokens`, raises `BudgetExceededError` and is not sent. `spent_usd` is what they cost so far.
        requests_per_minute: Calls in any 60 seconds; the others wait.
        max_concurrency: Calls at once; the others wait.
        default_headers: Sent with every call, in place of ours of the same name in any spelling.
        http_client: For synchronous calls, in place of the shared connection pool.
        http_async_client: For asynchronous calls, in place of the shared pools.

    A call takes `timeout`, `deadline`, `max_retries` and all that begins with `image_` too, and `extra_headers` beside
    `default_headers`: `model.invoke(messages, timeout=3)`, `model.bind(extra_headers={"x-team": "maps"})`.

    Raises:
        UnknownProviderError: There is no provider of this name.
        ConfigurationError: A time, a number of retries, a header or an address can't be.
    """

    _key_field = "llama_vision_api_key"

    model_config = ConfigDict(
        populate_by_name=True,
        extra="forbid",
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
    )

    if TYPE_CHECKING:  # which know one name of a field only
        model: str = ""
        model_name: str = ""
        stop: StopField = None
        stop_sequences: StopField = None
    else:
        model_name: str = Field(
            default_factory=lambda fields: default_model(_provider_of(fields)), alias="model"
        )
        stop: StopField = Field(default=None, alias="stop_sequences")
    llama_vision_api_key: ApiKeyField = Field(
        default_factory=lambda fields: key_from_environment(_provider_of(fields)), alias="api_key"
    )
    base_url: str | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    # None and not False: LangChain never streams if it is set to False, also by `configurable_fields`.
    streaming: bool | None = None
    stream_usage: bool | None = None
    extra_body: dict[str, Any] | None = None

    @field_validator("profile", mode="before")
    @classmethod
    def _find_profile_anew(cls, profile: Any) -> Any:
        """Drop a derived profile: `configurable_fields` copies it to other models and providers."""
        return None if isinstance(profile, DerivedProfile) else profile

    @field_validator("stop", mode="before")
    @classmethod
    def _list_stop(cls, stop: Any) -> Any:
        return [stop] if isinstance(stop, str) else stop

    @model_validator(mode="after")
    def _check_provider(self) -> Self:
        """Refuse what no call could use, bind the key to the provider, and tell LangChain the package's version."""
        bound = bind_key(self.llama_vision_api_key, self._provider)
        if bound is not self.llama_vision_api_key:
            self.llama_vision_api_key = bound
        with TranslateErrors():
            self._check_settings(self.base_url)
            if self.base_url:
                resolve_base_url(self._provider, self.base_url)
        self._add_version("llama-vision", __version__)
        return self

    if not TYPE_CHECKING:

        @property
        def model(self) -> str:
            """The model's name, as passed."""
            return self.model_name

    @property
    @override
    def _llm_type(self) -> str:
        return "llama-vision"

    @property
    @override
    def _identifying_params(self) -> dict[str, Any]:
        """Parameters that identify the model in caches and traces."""
        return {
            **self._address(),
            "model": self.model_name,
            **{
                name: value for name in sorted(SAMPLING_OPTIONS) if (value := getattr(self, name)) is not None
            },
            "stop": self.stop,
            "extra_body": self.extra_body,
        }

    def _address(self) -> dict[str, Any]:
        """Return who answers, and where."""
        resolved = resolve_provider(self.provider)
        if isinstance(resolved, Provider):
            return {"provider": resolved.name, "base_url": self.base_url or resolved.base_url}
        targets = resolved.all_targets
        return {
            "provider": resolved.names,
            "base_url": [target.base_url or target.record.base_url for target in targets],
            "models": [target.model for target in targets],
        }

    @override
    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        """Distinguish custom provider records, which LangChain does not: two would share cached replies."""
        own = "" if isinstance(self.provider, str) else f"---{self._identifying_params}"
        return super()._get_llm_string(stop=stop, **hide_headers(kwargs)) + own

    @classmethod
    @override
    def is_lc_serializable(cls) -> bool:
        return True

    @property
    @override
    def lc_secrets(self) -> dict[str, str]:
        secrets = {"llama_vision_api_key": next(iter(self._provider.key_env), "LLAMA_VISION_API_KEY")}
        if self.account_id is not None:
            secrets["account_id"] = next(iter(self._provider.account_env), "LLAMA_VISION_ACCOUNT_ID")
        return secrets

    @override
    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        """Hide the headers of a call, which may hold keys, from callbacks and traces."""
        return super()._get_invocation_params(stop=stop, **hide_headers(kwargs))

    @override
    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(
            stop=cast("list[str] | None", self.stop) if stop is None else stop, **kwargs
        )
        # `SummarizationMiddleware` believes the reported tokens only of messages whose `model_provider` is the same.
        params["ls_provider"] = MODEL_PROVIDER
        return params

    @override
    def _combine_llm_outputs(self, _llm_outputs: list[dict[str, Any] | None], /) -> dict[str, Any]:
        return combine_llm_outputs(_llm_outputs)

    @override
    def _resolve_model_profile(self) -> ModelProfile:
        text_tool_calls = self.text_tool_calls is not False
        profile = model_profile(self._provider, self.model_name, text_tool_calls=text_tool_calls)
        return cast("ModelProfile", DerivedProfile(profile))

    @override
    def get_num_tokens(self, text: str) -> int:
        """Estimate the tokens of a text, without a network call."""
        return estimate_text_tokens(text)

    @override
    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Estimate the tokens of a conversation, without a network call.

        Args:
            messages: The conversation; images count by their tiles.
            tools: Tools offered with it, in any form that LangChain knows.
        """
        with TranslateErrors():
            offered = [parse_tool(to_openai_tool(tool)) for tool in tools or ()]
            return estimate_tokens(to_messages(messages), offered)

    @property
    def _provider(self) -> Provider:
        with TranslateErrors():
            return first_provider(self.provider)

    @override
    def _backend(self, call: Mapping[str, Any] = _NO_OPTIONS) -> Backend:
        provider = resolve_provider(self.provider)
        key = resolve_key(
            self.llama_vision_api_key, provider.first if isinstance(provider, Route) else provider
        )
        return self._create_backend(provider, key, self.base_url, call)

    def _request(
        self, messages: list[BaseMessage], stop: list[str] | None, call: dict[str, Any]
    ) -> ChatRequest:
        options = {"model": self.model_name, **{name: getattr(self, name) for name in _REQUEST_FIELDS}}
        if stop is not None:
            options["stop"] = stop
        return to_request(self._provider, messages, {**options, **call})

    @override
    @_keep_signature
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with TranslateErrors():
            reply = self._backend(kwargs).complete(self._request(messages, stop, kwargs))
        return to_result(reply, self._provider.name)

    @override
    @_keep_signature
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with TranslateErrors():
            reply = await self._backend(kwargs).acomplete(self._request(messages, stop, kwargs))
        return to_result(reply, self._provider.name)

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        converter = ChunkConverter(self._provider.name)
        with (
            TranslateErrors(),
            contextlib.closing(self._backend(kwargs).stream(self._request(messages, stop, kwargs))) as events,
        ):
            for event in events:
                if (chunk := converter.to_chunk(event)) is not None:
                    if run_manager:
                        run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        converter = ChunkConverter(self._provider.name)
        with TranslateErrors():
            async with contextlib.aclosing(
                self._backend(kwargs).astream(self._request(messages, stop, kwargs))
            ) as events:
                async for event in events:
                    if (chunk := converter.to_chunk(event)) is not None:
                        if run_manager:
                            await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                        yield chunk

    def submit_batch(
        self, inputs: Sequence[LanguageModelInput], *, stop: list[str] | None = None, **kwargs: Any
    ) -> "BatchJob[AIMessage]":
        """Send many inputs to the provider's batch API, which answers them within a day at a lower price.

        Args:
            inputs: As of `batch`. All are checked and their images prepared before anything is sent.
            stop: Stop strings.
            **kwargs: Arguments of each call, such as `tools` or `max_tokens`.

        Returns:
            The job. It goes on without this process: keep its `id` for `batch_job`.

        Raises:
            UnsupportedInputError: The provider has no batch API, or takes fewer requests in a batch.
            LlamaVisionError: An input can't be sent, and the text begins with its place, as in `inputs[3]`; or the
                provider refuses them.
        """
        with TranslateErrors():
            batches, requests = self._batches(inputs, stop, kwargs)
            batch = batches.submit(requests)
            return self._batch_job(batches, batch, len(requests))

    async def asubmit_batch(
        self, inputs: Sequence[LanguageModelInput], *, stop: list[str] | None = None, **kwargs: Any
    ) -> "BatchJob[AIMessage]":
        """Send many inputs to the batch API, asynchronously. See `submit_batch`."""
        with TranslateErrors():
            batches, requests = self._batches(inputs, stop, kwargs)
            batch = await batches.asubmit(requests)
            return self._batch_job(batches, batch, len(requests))

    def batch_job(
        self, batch_id: str, *, stop: list[str] | None = None, **kwargs: Any
    ) -> "BatchJob[AIMessage]":
        """Make the job of a batch that was submitted before, here or in another process; nothing is sent yet.

        Args:
            batch_id: The `id` of the job.
            stop: As of `submit_batch`.
            **kwargs: As of `submit_batch`: tools and the model decide how replies are read.

        Returns:
            The job, whose `refresh` and `results` ask the provider.

        Raises:
            UnsupportedInputError: The provider has no batch API.
        """
        with TranslateErrors():
            batches, _ = self._batches(["-"], stop, kwargs)
            return self._batch_job(batches, batch_id)

    def _batches(
        self, inputs: Sequence[LanguageModelInput], stop: list[str] | None, call: dict[str, Any]
    ) -> "tuple[BatchClient, list[ChatRequest]]":
        from llama_vision.backends.batches import BatchClient, build_requests  # noqa: PLC0415 - loaded late, as backends are

        requests = build_requests(
            inputs, lambda given: self._request(self._convert_input(given).to_messages(), stop, call)
        )
        return BatchClient(self._backend(call), requests[0]), requests

    def _batch_job(
        self, batches: "BatchClient", batch: "WireBatch | str", num_requests: int | None = None
    ) -> "BatchJob[AIMessage]":
        from llama_vision.backends.batches import BatchJob  # noqa: PLC0415 - as above

        def convert(row: Reply | LlamaVisionError) -> AIMessage | LlamaVisionError:
            if isinstance(row, LlamaVisionError):
                return to_langchain_error(row)
            return to_message(row, self._provider.name)

        return BatchJob(batches, batch, convert, num_requests=num_requests, errors=TranslateErrors)

    @override
    def bind(self, **kwargs: Any) -> Any:
        """Bind arguments of each call, which `submit_batch` gets too."""
        from llama_vision.langchain.bound_model import BoundModel  # noqa: PLC0415 - a pydantic class: 6 ms

        return BoundModel(bound=self, kwargs=kwargs, config={})

    @override
    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        response_format: Any = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools to the model.

        Args:
            tools: Functions, `BaseTool`s, pydantic classes, TypedDicts, or JSON schemas.
            tool_choice: `"auto"`, `"none"`, `"any"` (or `"required"` or True), a tool's name, or OpenAI's dictionary.
            strict: Ask the provider to enforce the schemas.
            parallel_tool_calls: Whether several tools may be called at once.
            response_format: The format of the final reply, as `create_agent` requests it.
            **kwargs: Further arguments of each call.

        Returns:
            The model with the tools bound to it.

        Raises:
            UnsupportedInputError: A tool is another company's built-in one, such as `web_search`; the text names it.
        """
        may_relax = (
            self._provider.strict_by_default
        )  # where LangChain validates: by a tool's class, and in `create_agent`
        relaxed = False if strict is None and may_relax else strict
        with TranslateErrors():
            converted = [
                to_openai_tool(tool, strict=strict if isinstance(tool, Mapping) else relaxed)
                for tool in tools
            ]
        options = {
            "tools": converted or None,
            "tool_choice": tool_choice or None,
            "parallel_tool_calls": parallel_tool_calls,
            "response_format": relax_response_format(response_format) if may_relax else response_format,
        }
        return self.bind(**{name: value for name, value in options.items() if value is not None}, **kwargs)

    @overload
    def with_structured_output(
        self,
        schema: type[_Schema],
        *,
        method: StructuredMethod = "auto",
        include_raw: Literal[False] = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, _Schema]: ...

    @overload
    def with_structured_output(
        self,
        schema: dict[str, Any],
        *,
        method: StructuredMethod = "auto",
        include_raw: Literal[False] = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any]]: ...

    @overload
    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None,
        *,
        method: StructuredMethod = "auto",
        include_raw: Literal[True],
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any]]: ...

    @overload
    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        method: StructuredMethod = "auto",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]: ...

    @override
    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        method: StructuredMethod = "auto",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Structured output: make the model reply with an object.

        Streams yield the partial object. An invalid reply raises `OutputParserException`, whose `llm_output` is what the
        model wrote; one that was cut off says so, and is not retried.

        Args:
            schema: A pydantic class, for instances of it; or a TypedDict or a JSON schema, for dictionaries. None, with
                `json_mode`, takes any JSON.
            method: `"json_schema"` and `"json_mode"` ask for OpenAI's `response_format`, `"function_calling"` makes the
                model call a tool, and `"prompt"` puts the schema into the prompt, which works with every model; so
                does `"json_mode"`. `"auto"` takes the provider's best one. With it, and with `"prompt"`, a reply is
                validated against the schema and requested again, with what was wrong, at most twice; the other methods
                send one request, and validate pydantic classes only.
            include_raw: Return `{"raw": message, "parsed": object, "parsing_error": error}` in place of raising.
            strict: Ask the provider to enforce the schema; not for `"json_mode"`.
            **kwargs: Further arguments of each call, such as `temperature`.

        Returns:
            A runnable with the model's input, whose output is the object.

        Raises:
            StructuredMethodError: There is no such method, or it does not go with `strict` or without a schema.
            ValueError: LangChain can't read the schema.
        """
        from llama_vision.langchain.structured_output import (  # noqa: PLC0415 - 6 ms that only this takes
            bind_structured_output,
            to_output_schema,
        )

        with TranslateErrors():
            plan = plan_structured_output(
                to_output_schema(schema, strict=strict),
                method,
                self._provider,
                str(kwargs.get("model") or self.model_name),
                strict=strict,
                text_tool_calls=kwargs.get("text_tool_calls", self.text_tool_calls) is not False,
            )
            return bind_structured_output(self, plan, schema, kwargs, include_raw=include_raw, strict=strict)
