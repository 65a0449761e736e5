"""`LlamaVision`: Llama 3.2 Vision as a LlamaIndex LLM, hosted or local."""

import contextlib
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import httpx
from llama_index.core import instrumentation
from llama_index.core.base.llms.generic_utils import (
    astream_chat_response_to_completion_response,
    chat_response_to_completion_response,
    stream_chat_response_to_completion_response,
)
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    MessageRole,
)
from llama_index.core.chat_engine.types import AgentChatResponse
from llama_index.core.instrumentation.events.llm import (
    LLMStructuredPredictEndEvent,
    LLMStructuredPredictStartEvent,
)
from llama_index.core.llms import callbacks
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.prompts.base import BasePromptTemplate
from llama_index.core.tools.types import BaseTool
from llama_index.core.types import PydanticProgramMode
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_serializer,
    field_validator,
    model_validator,
)
from typing_extensions import override

from llama_vision.adaptation.token_estimate import estimate_tokens
from llama_vision.backends.model_fields import BACKEND_OPTIONS, ApiKeyField, BackendFields
from llama_vision.core.backend import Backend
from llama_vision.core.errors import LlamaVisionError, UnsupportedInputError
from llama_vision.core.reply import Reply
from llama_vision.core.request import DEFAULT_MAX_TOKENS, ChatRequest
from llama_vision.llamaindex.convert import (
    SnapshotConverter,
    is_empty_system_message,
    to_messages,
    to_request,
    to_response,
)
from llama_vision.llamaindex.hidden_headers import HiddenHeaders
from llama_vision.llamaindex.images import Images, user_message
from llama_vision.llamaindex.metadata import LlamaVisionMetadata, context_window_with_images
from llama_vision.llamaindex.programs import output_class_of, to_agent_response, to_chat_response
from llama_vision.llamaindex.provider_json import dump_provider, load_provider
from llama_vision.llamaindex.structured_output import StructuredPrediction
from llama_vision.llamaindex.tools import (
    build_messages,
    is_final,
    only_first_call,
    single_call_option,
    supports_forced_call,
    tool_options,
    tool_selections,
)
from llama_vision.providers import Provider
from llama_vision.providers.base_url import resolve_base_url
from llama_vision.providers.defaults import default_model
from llama_vision.providers.route import first_provider, resolve_provider
from llama_vision.structured.method import StructuredMethod, plan_structured_output
from llama_vision.structured.output_schema import OutputSchema

if TYPE_CHECKING:
    from llama_vision.backends.batches import BatchClient, BatchJob, WireBatch

_NO_OPTIONS: Mapping[str, Any] = {}

_Model = TypeVar("_Model", bound=BaseModel)
_Method = TypeVar("_Method", bound=Callable[..., Any])
_dispatcher = cast("Any", instrumentation).get_dispatcher(__name__)


def _chat_callback(method: _Method) -> _Method:
    """Report the start and the end of a chat to LlamaIndex's callbacks: its decorator, typed."""
    return cast("_Method", cast("Any", callbacks).llm_chat_callback()(method))


def _completion_callback(method: _Method) -> _Method:
    return cast("_Method", cast("Any", callbacks).llm_completion_callback()(method))


class LlamaVision(HiddenHeaders, BackendFields, FunctionCallingLLM):
    """LlamaIndex LLM for Llama 3.2 Vision: hosted, behind any OpenAI-compatible endpoint, or local.

    Without arguments it is the tiny model bundled with the package, which recognizes drawn shapes, colours and short
    signs and needs no key:

        >>> from llama_vision.llamaindex import LlamaVision
        >>> LlamaVision().complete("Say hi").text
        'Hi'

    An image is an `ImageBlock` in a chat message, or one of `image_documents` of a completion:

        llm.complete("What colour is the circle?", image_documents=[ImageDocument(image_path="circle.png")])

    Args:
        provider: `"local"`, `"deepinfra"`, `"cloudflare"`, or any other that `llama-vision providers` lists, or a
            `Provider` record of your own. A list, or a `Route`, of several: the next one takes over where one fails before
            the first token. Default: `$LLAMA_VISION_PROVIDER`, else `"local"`.
        model: `llama-3.2-11b-vision` and `llama-3.2-90b-vision` become the provider's own ids; any other name is sent
            unchanged. Default: `$LLAMA_VISION_MODEL`, else `tiny` for local and the 11B elsewhere.
        api_key: The provider's key, or a function that returns one, such as a token that expires: it is called for each
            call, and once more after a 401. It may be a coroutine function, for asynchronous calls. Default: read from the
            provider's environment variables for each call. Left out of dumps and pickles; an unpickled model refuses to
            call without it.
        api_base: Overrides the provider's base URL: everything before `/chat/completions`, or before `/accounts/` for
            Cloudflare.
        account_id: The account, for providers whose URLs contain one. Default: the provider's environment variables.
        accept_license: Accept Meta's license on behalf of the account, where the provider asks for it (Cloudflare) and
            it has not been accepted yet. Read it first; without this such a call raises `LicenseNotAcceptedError`.
        temperature: 0 decodes greedily; None leaves it to the provider.
        max_tokens: Maximum tokens of a reply. Always sent: some providers stop at 256 otherwise.
        additional_kwargs: Further options (`top_p`, `seed`, `stop`, ...) and provider-specific fields of the body.
        context_window: Tokens of prompt and reply together, as LlamaIndex plans with; None takes the record's.
        is_function_calling_model: False makes agents write tool calls as ReAct does; None takes what the provider supports.
        max_retries: Retries of a call that failed temporarily (no connection, 408, 409, 429, 5xx) before any of the
            reply arrived.
        timeout: Seconds without a byte before a call fails, or an `httpx.Timeout`; None waits forever. The head of a
            response, a body, and the time between two payloads of a stream may take twice as long in all.
        deadline: Seconds for a whole call: its images, its retries and its reply, a stream to its end.
        structured_output: Method of `structured_predict`, `as_structured_llm`, ... `"json_schema"`, `"function_calling"`
            and `"json_mode"` use the provider's feature, in one request; `"prompt"` puts the schema into the prompt, and
            retries at most twice if the reply doesn't validate. `"auto"` takes the most reliable method the provider
            has, and retries too. An explicit `pydantic_program_mode` leaves it to LlamaIndex.
        text_tool_calls: False leaves tool calls that the model writes as text in the text, and offers tools only where
            the provider supports them natively; otherwise tools are described in the prompt.
        image_max_pixels: Maximum pixels of an image that is sent, below what the model can use: at most four tiles of
            560 x 560. Larger images are scaled down, none is scaled up.
        image_format: `"jpeg"` or `"png"` for images that have to be re-encoded; `"auto"` takes JPEG for photographs and
            PNG for drawings and text. A small image of an accepted type is sent byte for byte.
        image_quality: JPEG quality, 1 to 95.
        image_policy: What to do with more images than the provider accepts: `"error"`, send the `"first"` ones, or put
            all on one numbered contact sheet (`"grid"`).
        image_allowed_hosts: The only hosts that images are fetched from, where the provider needs their bytes; they may
            be private. Default: any public host.
        image_private_networks: Whether images may be fetched from addresses that are not public.
        document_max_pages: The maximum number of pages of one PDF or TIFF; more are refused before anything is sent.
        document_text: False shows the pages of a document as images alone, without their text layer.
        local_settings: Fields of `llama_vision.backends.local.LocalSettings`: `max_batch_size`, `max_model_len` (tokens
            of prompt and reply), `image_cache_bytes`, `max_waiting` (requests), `device`, `dtype`, `quantization`
            (`int8`, `int4`, `fp8`).
        max_cost_usd: US dollars that all calls of this model may cost together. A call that could exceed it, by an
            estimate with `max_tokens`, raises `BudgetExceededError` and is not sent. `spent_usd` is what they cost so far.
        requests_per_minute: Calls in any 60 seconds; the others wait.
        max_concurrency: Calls at once; the others wait.
        default_headers: Sent with every call, in place of ours of the same name in any spelling; left out of dumps and pickles, because they may hold keys.
        http_client: `httpx.Client` for synchronous calls in place of the shared connection pool. Left out of dumps and
            pickles.
        http_async_client: `httpx.AsyncClient` for asynchronous calls, likewise.
        system_prompt: Put before conversations that have no system message of their own.

    A call takes `timeout`, `deadline`, `max_retries` and all that begins with `image_` too, and `extra_headers` beside
    `default_headers`: `llm.chat(messages, timeout=3, extra_headers={"x-team": "maps"})`.

    Raises:
        UnknownProviderError: There is no provider of this name.
        ConfigurationError: A time, a number of retries, a header or an address can't be.
    """

    _options_field = "additional_kwargs"

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    model: str = Field(
        default_factory=lambda fields: default_model(first_provider(fields.get("provider", "local")))
    )
    api_key: ApiKeyField = Field(default=None, exclude=True, repr=False)
    api_base: str | None = None
    additional_kwargs: dict[str, Any] = Field(default_factory=dict)
    context_window: int | None = Field(default=None, gt=0)
    is_function_calling_model: bool | None = None
    structured_output: StructuredMethod = "auto"

    @model_validator(mode="before")
    @classmethod
    def _drop_class_name(cls, values: Any) -> Any:
        """Accept what `to_dict` returns: it adds the class name."""
        return {name: value for name, value in values.items() if name != "class_name"}

    @model_validator(mode="after")
    def _check_provider(self) -> Self:
        provider = first_provider(self.provider)
        self._check_settings(self.api_base)
        if self.api_base:
            resolve_base_url(provider, self.api_base)
        return self

    @field_validator("provider", mode="before")
    @classmethod
    def _load_provider(cls, provider: Any) -> Any:
        """Accept what `_dump_provider` returns."""
        if isinstance(provider, list):
            return [cls._load_provider(each) for each in cast("list[Any]", provider)]
        return load_provider(cast("dict[str, Any]", provider)) if isinstance(provider, dict) else provider

    @field_serializer("provider")
    def _dump_provider(self, provider: Any) -> Any:
        if isinstance(provider, list):
            return [self._dump_provider(each) for each in cast("list[Any]", provider)]
        return provider if isinstance(provider, str) else dump_provider(provider)

    @field_validator("timeout", mode="before")
    @classmethod
    def _load_timeout(cls, timeout: Any) -> Any:
        """Accept what `_dump_timeout` returns."""
        return httpx.Timeout(**cast("dict[str, Any]", timeout)) if isinstance(timeout, dict) else timeout

    @field_serializer("timeout")
    def _dump_timeout(self, timeout: float | httpx.Timeout | None) -> Any:
        return timeout.as_dict() if isinstance(timeout, httpx.Timeout) else timeout

    @classmethod
    @override
    def class_name(cls) -> str:
        return "llama_vision_llm"

    @property
    @override
    def metadata(self) -> LlamaVisionMetadata:
        provider = self._provider
        info = provider.model_info(self.model)
        # The local model has tools in its chat template; a hosted one can have them described in the prompt.
        prompted_tools = self.text_tool_calls is not False and provider.dialect is not None
        calls_functions = prompted_tools or (provider.supports("tools") and info.tools)
        return LlamaVisionMetadata(
            context_window=self.context_window or context_window_with_images(info.context_window),
            num_output=self.max_tokens or DEFAULT_MAX_TOKENS,
            is_chat_model=True,
            is_function_calling_model=calls_functions
            if self.is_function_calling_model is None
            else self.is_function_calling_model,
            model_name=self.model,
        )

    def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        """Estimate the tokens of a conversation, without a network call.

        Args:
            messages: The conversation; images count by their tiles.

        Returns:
            Tokens.
        """
        return estimate_tokens(to_messages(messages))

    @property
    def _provider(self) -> Provider:
        return first_provider(self.provider)

    @override
    def _backend(self, call: Mapping[str, Any] = _NO_OPTIONS) -> Backend:
        key = self.api_key.get_secret_value() if isinstance(self.api_key, SecretStr) else self.api_key
        always = {
            name: self.additional_kwargs[name] for name in BACKEND_OPTIONS & self.additional_kwargs.keys()
        }
        return self._create_backend(resolve_provider(self.provider), key, self.api_base, {**always, **call})

    def _request(self, messages: Sequence[ChatMessage], call: Mapping[str, Any]) -> ChatRequest:
        # Chat engines without a system prompt send an empty one, which would suppress the model's own.
        messages = [message for message in messages if not is_empty_system_message(message)]
        if self.system_prompt and not any(message.role is MessageRole.SYSTEM for message in messages):
            messages = self._extend_messages(messages)
        options = {
            "model": self.model,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "text_tool_calls": self.text_tool_calls,
            **call,
        }
        return to_request(self._provider, messages, options, self.additional_kwargs)

    def _prompt_request(
        self, prompt: str, formatted: bool, image_documents: Images | None, call: Mapping[str, Any]
    ) -> ChatRequest:
        # A list of images in its place would be ignored silently.
        if not isinstance(cast("object", formatted), bool):
            raise UnsupportedInputError("Pass images by name: complete(prompt, image_documents=[...]).")
        if not formatted and self.completion_to_prompt is not None:
            prompt = self.completion_to_prompt(prompt)
        return self._request([user_message(prompt, image_documents or ())], call)

    # Without callbacks: a public method that called another one would report every call twice.

    def _chat(self, request: ChatRequest, backend: Backend) -> ChatResponse:
        return to_response(backend.complete(request), self._provider.name)

    async def _achat(self, request: ChatRequest, backend: Backend) -> ChatResponse:
        return to_response(await backend.acomplete(request), self._provider.name)

    def _stream_chat(self, request: ChatRequest, backend: Backend) -> Generator[ChatResponse]:
        snapshots = SnapshotConverter(self._provider.name)
        with contextlib.closing(backend.stream(request)) as events:
            for event in events:
                if (response := snapshots.add(event)) is not None:
                    yield response
        # After the stream is closed: a consumer that raises on the last response, as agents do on truncated
        # arguments, leaves this generator open, and asyncio would complain about closing it from two ends.
        if snapshots.final is not None:
            yield snapshots.final

    async def _astream_chat(self, request: ChatRequest, backend: Backend) -> AsyncGenerator[ChatResponse]:
        """As `_stream_chat`."""
        snapshots = SnapshotConverter(self._provider.name)
        async with contextlib.aclosing(backend.astream(request)) as events:
            async for event in events:
                if (response := snapshots.add(event)) is not None:
                    yield response
        if snapshots.final is not None:
            yield snapshots.final

    # The eight endpoints. Each reports one start and one end to the callbacks. Input is validated when one is called; a
    # stream makes its call when the first response is asked for.

    @_chat_callback
    @override
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Reply to a conversation.

        Args:
            messages: The conversation, with images as `ImageBlock`s.
            **kwargs: Options that override the fields: `temperature`, `max_tokens`, `model`, `top_p`, `stop`, ...

        Returns:
            The response; token counts and cost in `additional_kwargs`.

        Raises:
            LlamaVisionError: The call failed; the classes are listed in `llama_vision.core.errors`.
        """
        return self._chat(self._request(messages, kwargs), self._backend(kwargs))

    @_chat_callback
    @override
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Stream a reply: each response holds all text so far, and the new text in `delta`. See `chat`."""
        return self._stream_chat(self._request(messages, kwargs), self._backend(kwargs))

    @_chat_callback
    @override
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Reply to a conversation, asynchronously. See `chat`."""
        return await self._achat(self._request(messages, kwargs), self._backend(kwargs))

    @_chat_callback
    @override
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Stream a reply, asynchronously. See `stream_chat`."""
        return self._astream_chat(self._request(messages, kwargs), self._backend(kwargs))

    @_completion_callback
    @override
    def complete(
        self, prompt: str, formatted: bool = False, image_documents: Images | None = None, **kwargs: Any
    ) -> CompletionResponse:
        """Reply to a prompt; returns and raises as `chat` does.

        Args:
            prompt: The prompt.
            formatted: Whether the prompt has already gone through `completion_to_prompt`.
            image_documents: Images: `ImageDocument`, `ImageNode`, `ImageBlock`, a path, bytes, a URL, a PIL image.
            **kwargs: Options that override the fields.
        """
        request = self._prompt_request(prompt, formatted, image_documents, kwargs)
        return chat_response_to_completion_response(self._chat(request, self._backend(kwargs)))

    @_completion_callback
    @override
    def stream_complete(
        self, prompt: str, formatted: bool = False, image_documents: Images | None = None, **kwargs: Any
    ) -> CompletionResponseGen:
        """Stream the reply to a prompt. See `complete`."""
        request = self._prompt_request(prompt, formatted, image_documents, kwargs)
        return stream_chat_response_to_completion_response(self._stream_chat(request, self._backend(kwargs)))

    @_completion_callback
    @override
    async def acomplete(
        self, prompt: str, formatted: bool = False, image_documents: Images | None = None, **kwargs: Any
    ) -> CompletionResponse:
        """Reply to a prompt, asynchronously. See `complete`."""
        request = self._prompt_request(prompt, formatted, image_documents, kwargs)
        return chat_response_to_completion_response(await self._achat(request, self._backend(kwargs)))

    @_completion_callback
    @override
    async def astream_complete(
        self, prompt: str, formatted: bool = False, image_documents: Images | None = None, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Stream the reply to a prompt, asynchronously. See `complete`."""
        request = self._prompt_request(prompt, formatted, image_documents, kwargs)
        return astream_chat_response_to_completion_response(
            self._astream_chat(request, self._backend(kwargs))
        )

    # The batch API. Callbacks see nothing of it: a job is no call.

    def submit_batch(
        self, inputs: Sequence[Sequence[ChatMessage] | str], **kwargs: Any
    ) -> "BatchJob[ChatResponse]":
        """Send many conversations to the provider's batch API, which answers them within a day at a lower price.

        Args:
            inputs: Conversations or prompts. All are checked and their images prepared before anything is sent.
            **kwargs: Options of each call, such as `max_tokens`; `tools` in OpenAI's form.

        Returns:
            The job. It goes on without this process: keep its `id` for `batch_job`.

        Raises:
            UnsupportedInputError: The provider has no batch API, or takes fewer requests in a batch.
            LlamaVisionError: An input can't be sent, and the text begins with its place, as in `inputs[3]`; or the
                provider refuses them.
        """
        batches, requests = self._batches(inputs, kwargs)
        return self._batch_job(batches, batches.submit(requests), len(requests))

    async def asubmit_batch(
        self, inputs: Sequence[Sequence[ChatMessage] | str], **kwargs: Any
    ) -> "BatchJob[ChatResponse]":
        """Send many inputs to the batch API, asynchronously. See `submit_batch`."""
        batches, requests = self._batches(inputs, kwargs)
        return self._batch_job(batches, await batches.asubmit(requests), len(requests))

    def batch_job(self, batch_id: str, **kwargs: Any) -> "BatchJob[ChatResponse]":
        """Make the job of a batch that was submitted before, here or in another process; nothing is sent yet.

        Args:
            batch_id: The `id` of the job.
            **kwargs: As of `submit_batch`: tools, stop strings and the model decide how replies are read.

        Returns:
            The job, whose `refresh` and `results` ask the provider.

        Raises:
            UnsupportedInputError: The provider has no batch API.
        """
        batches, _ = self._batches(["-"], kwargs)
        return self._batch_job(batches, batch_id)

    def _batches(
        self, inputs: Sequence[Sequence[ChatMessage] | str], call: Mapping[str, Any]
    ) -> "tuple[BatchClient, list[ChatRequest]]":
        from llama_vision.backends.batches import BatchClient, build_requests  # noqa: PLC0415 - loaded late, as backends are

        def build(given: Sequence[ChatMessage] | str) -> ChatRequest:
            if isinstance(given, str):
                return self._prompt_request(given, formatted=False, image_documents=None, call=call)
            return self._request(given, call)

        requests = build_requests(inputs, build)
        return BatchClient(self._backend(call), requests[0]), requests

    def _batch_job(
        self, batches: "BatchClient", batch: "WireBatch | str", num_requests: int | None = None
    ) -> "BatchJob[ChatResponse]":
        from llama_vision.backends.batches import BatchJob  # noqa: PLC0415 - as above

        def convert(row: Reply | LlamaVisionError) -> ChatResponse | LlamaVisionError:
            return row if isinstance(row, LlamaVisionError) else to_response(row, self._provider.name)

        return BatchJob(batches, batch, convert, num_requests=num_requests)

    # Tool calling: the hooks of `FunctionCallingLLM`.

    @override
    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        tool_choice: str | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        settings = {"model": self.model, "text_tool_calls": self.text_tool_calls}
        # LlamaIndex's programs need the call in streams too, where they don't set tool_required.
        required = tool_required or (
            output_class_of(tools) is not None
            and supports_forced_call(self._provider, {**settings, **kwargs})
        )
        options = tool_options(tools, tool_choice or ("required" if required else None), kwargs)
        # Parallel calls are every server's default.
        if not allow_parallel_tool_calls:
            options |= single_call_option(self._provider, {**settings, **options})
        return {"messages": build_messages(chat_history, user_msg), **options}

    @override
    def _validate_chat_with_tools_response(
        self,
        response: ChatResponse,
        tools: Sequence[BaseTool],
        allow_parallel_tool_calls: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        return response if allow_parallel_tool_calls else only_first_call(response)

    @override
    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Read the tool calls of a response.

        Args:
            response: From `chat_with_tools` or its streams, where the arguments may be incomplete.
            error_on_no_tool_call: Whether to raise if there is none.
            **kwargs: Not used.

        Returns:
            The calls; of a stream under way, with as much of their arguments as can be parsed.

        Raises:
            ToolArgumentsError: The response is complete, and a call's arguments are not a JSON object.
            ValueError: There is no call, and `error_on_no_tool_call` is set.
        """
        return tool_selections(response, error_on_no_tool_call=error_on_no_tool_call)

    # Structured output. Calls go through the public endpoints, so that callbacks see and count each of them.

    @override
    def structured_predict(
        self,
        output_cls: type[_Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> _Model:
        """Reply to a prompt with an object of a pydantic class.

        Args:
            output_cls: The class.
            prompt: The prompt, which may hold images.
            llm_kwargs: Options of the call, such as `max_tokens`.
            **prompt_args: Values of the prompt's variables.

        Returns:
            The object.

        Raises:
            StructuredOutputError: The model's reply doesn't validate; it is a `ValueError` too.
            LlamaVisionError: The call failed; the classes are listed in `llama_vision.core.errors`.
        """
        if self._uses_llamaindex_program:
            return super().structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
        _report_start(output_cls, prompt, prompt_args)
        output = self._predict(
            self._prediction(output_cls, prompt.format_messages(llm=self, **prompt_args), llm_kwargs)
        )
        _dispatcher.event(LLMStructuredPredictEndEvent(output=output))
        return output

    @override
    async def astructured_predict(
        self,
        output_cls: type[_Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> _Model:
        """Reply to a prompt with an object, asynchronously. See `structured_predict`."""
        if self._uses_llamaindex_program:
            return await super().astructured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
        _report_start(output_cls, prompt, prompt_args)
        output = await self._apredict(
            self._prediction(output_cls, prompt.format_messages(llm=self, **prompt_args), llm_kwargs)
        )
        _dispatcher.event(LLMStructuredPredictEndEvent(output=output))
        return output

    @override
    def _structured_stream_call(  # behind `stream_structured_predict`
        self,
        output_cls: type[_Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Any]:
        if self._uses_llamaindex_program:
            return super()._structured_stream_call(output_cls, cast("Any", prompt), llm_kwargs, **prompt_args)
        return self._stream_objects(
            self._prediction(output_cls, prompt.format_messages(llm=self, **prompt_args), llm_kwargs)
        )

    @override
    async def _structured_astream_call(  # behind `astream_structured_predict`
        self,
        output_cls: type[_Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any]:
        if self._uses_llamaindex_program:
            return await super()._structured_astream_call(
                output_cls, cast("Any", prompt), llm_kwargs, **prompt_args
            )
        return self._astream_objects(
            self._prediction(output_cls, prompt.format_messages(llm=self, **prompt_args), llm_kwargs)
        )

    # A `FunctionCallingProgram` has no other hooks than the next four methods. It only knows how to offer a tool, which it
    # doesn't force in streams, so its tool is answered by the methods of `structured_predict`.

    @override
    def predict_and_call(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        *args: Any,
        **kwargs: Any,
    ) -> AgentChatResponse:
        """Let the model choose a tool, and call it. See LlamaIndex's `FunctionCallingLLM`."""
        prediction = self._program_prediction(
            tools, user_msg, chat_history, kwargs, allow_parallel_tool_calls
        )
        if prediction is not None:
            return to_agent_response(tools[0], self._predict(prediction), prediction.text)
        return super().predict_and_call(
            tools, user_msg, chat_history, verbose, allow_parallel_tool_calls, *args, **kwargs
        )

    @override
    async def apredict_and_call(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        *args: Any,
        **kwargs: Any,
    ) -> AgentChatResponse:
        """Let the model choose a tool, and call it. See LlamaIndex's `FunctionCallingLLM`."""
        prediction = self._program_prediction(
            tools, user_msg, chat_history, kwargs, allow_parallel_tool_calls
        )
        if prediction is not None:
            return to_agent_response(tools[0], await self._apredict(prediction), prediction.text)
        return await super().apredict_and_call(
            tools, user_msg, chat_history, verbose, allow_parallel_tool_calls, *args, **kwargs
        )

    @override
    def stream_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponseGen:
        """Offer tools and stream the reply. See LlamaIndex's `FunctionCallingLLM`."""
        prediction = self._program_prediction(
            tools, user_msg, chat_history, kwargs, allow_parallel_tool_calls, retries=False
        )
        if prediction is not None:
            return (to_chat_response(prediction.text) for _ in self._stream_objects(prediction))
        return super().stream_chat_with_tools(
            tools, user_msg, chat_history, verbose, allow_parallel_tool_calls, tool_required, **kwargs
        )

    @override
    async def astream_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponseAsyncGen:
        """Offer tools and stream the reply, asynchronously. See LlamaIndex's `FunctionCallingLLM`."""
        prediction = self._program_prediction(
            tools, user_msg, chat_history, kwargs, allow_parallel_tool_calls, retries=False
        )
        if prediction is not None:
            return (to_chat_response(prediction.text) async for _ in self._astream_objects(prediction))
        return await super().astream_chat_with_tools(
            tools, user_msg, chat_history, verbose, allow_parallel_tool_calls, tool_required, **kwargs
        )

    @property
    def _uses_llamaindex_program(self) -> bool:
        return self.pydantic_program_mode != PydanticProgramMode.DEFAULT

    def _program_prediction(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None,
        chat_history: list[ChatMessage] | None,
        options: Mapping[str, Any],
        parallel: bool,
        *,
        retries: bool = True,
    ) -> StructuredPrediction[BaseModel] | None:
        """Predict the object that a program's tool stands for; None for tools of any other kind."""
        output_cls = output_class_of(tools)
        if output_cls is None or parallel or self._uses_llamaindex_program:
            return None
        return self._prediction(output_cls, build_messages(chat_history, user_msg), options, retries=retries)

    def _prediction(
        self,
        output_cls: type[_Model],
        messages: Sequence[ChatMessage],
        options: Mapping[str, Any] | None,
        *,
        retries: bool = True,
    ) -> StructuredPrediction[_Model]:
        options = options or {}
        plan = plan_structured_output(
            OutputSchema.from_schema(output_cls),
            self.structured_output,
            self._provider,
            options.get("model") or self.model,
            text_tool_calls=options.get("text_tool_calls", self.text_tool_calls) is not False,
        )
        return StructuredPrediction(output_cls, plan, messages, options, retries=retries)

    def _predict(self, prediction: StructuredPrediction[_Model]) -> _Model:
        while (output := prediction.read(self.chat(**prediction.call))) is None:
            pass
        return output

    async def _apredict(self, prediction: StructuredPrediction[_Model]) -> _Model:
        while (output := prediction.read(await self.achat(**prediction.call))) is None:
            pass
        return output

    def _stream_objects(self, prediction: StructuredPrediction[_Model]) -> Generator[BaseModel]:
        """Yield the object as it grows, the last one complete; a retry starts anew."""
        while True:
            last = ChatResponse(message=ChatMessage())
            with contextlib.closing(self.stream_chat(**prediction.call)) as responses:
                for last in responses:
                    if not is_final(last) and (partial := prediction.partial(last)) is not None:
                        yield partial
            if (output := prediction.read(last)) is not None:
                yield output
                return

    async def _astream_objects(self, prediction: StructuredPrediction[_Model]) -> AsyncGenerator[BaseModel]:
        """As `_stream_objects`."""
        while True:
            last = ChatResponse(message=ChatMessage())
            async with contextlib.aclosing(await self.astream_chat(**prediction.call)) as responses:
                async for last in responses:
                    if not is_final(last) and (partial := prediction.partial(last)) is not None:
                        yield partial
            if (output := prediction.read(last)) is not None:
                yield output
                return


def _report_start(
    output_cls: type[BaseModel], prompt: BasePromptTemplate, prompt_args: dict[str, Any]
) -> None:
    _dispatcher.event(
        LLMStructuredPredictStartEvent(output_cls=output_cls, template=prompt, template_args=prompt_args)
    )
