"""`ChatLlamaVision`: Llama 3.2 Vision as a LangChain chat model, wherever it runs."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict
from typing_extensions import override

from llama_vision.langchain.convert import ChunkConverter
from llama_vision.langchain.errors import TranslateErrors
from llama_vision.langchain.model import ChatLlamaVisionModel
from llama_vision.langchain.results import to_result
from llama_vision.langchain.translator import register
from llama_vision.structured.method import StructuredMethod, plan_structured_output

register()


class ChatLlamaVision(ChatLlamaVisionModel):
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

    What goes wrong raises an error of `llama_vision.core.errors` that is one of `langchain_core.exceptions`, too, so that
    `except` of either kind catches it. With `configurable_fields(provider=..., model_name=...)` provider and model are
    chosen by the configuration of a call; a key goes to no other company than the one it was given for.

    Args:
        provider: `"local"`, `"deepinfra"`, `"cloudflare"`, or any other that `llama-vision providers` lists, or a
            `Provider` record of your own. Default: `$LLAMA_VISION_PROVIDER`, else `"local"`.
        model: `llama-3.2-11b-vision` and `llama-3.2-90b-vision` become the provider's own ids; anything else is sent
            as it is. Default: `$LLAMA_VISION_MODEL`, else `tiny` for local and the 11B elsewhere.
        api_key: The provider's key. Default: the provider's own environment variables. Without one the first call
            raises `MissingKeyError`. It is left out of pickles.
        base_url: In place of the documented address: everything before `/chat/completions`, or before `/accounts/` for
            Cloudflare.
        account_id: The account, at providers whose addresses contain one. Default: the provider's own variables.
        accept_license: Whether to accept Meta's license on behalf of the account, where the provider asks for it
            (Cloudflare) and it was not yet. Read it first; without this such a call raises `LicenseNotAcceptedError`.
        max_tokens: The most tokens of a reply. It is always sent: some providers cut at 256 otherwise.
        timeout: Seconds without a byte before a call is given up, or an `httpx.Timeout`; None waits for ever.
        max_retries: How often a call that failed for a passing reason (no connection, 408, 409, 429, 5xx) is made
            again, if nothing of the reply has arrived.
        stream_usage: False leaves token counts out of streams, for servers that refuse to be asked for them.
        text_tool_calls: False leaves tool calls that the model writes as text in the text.
        extra_body: Fields of the provider's own, sent as they are.
        image_max_pixels: The most pixels an image is sent with, besides what the model can use: at most four tiles of
            560 x 560. Larger ones are scaled down, none is ever scaled up.
        image_format: `"jpeg"` or `"png"` for images that have to be encoded anew; `"auto"` takes JPEG for photographs
            and PNG for drawings and text. A small image of an accepted kind is sent byte for byte.
        image_quality: Of JPEG, 1 to 95.
        image_policy: What to do with more images than the provider takes: `"error"`, send the `"first"` ones, or put
            all on one numbered sheet (`"grid"`).
        image_allowed_hosts: The only hosts that images are fetched from, where the provider needs their bytes; they may
            be private. Default: any public host.
        image_private_networks: Whether images may be fetched from addresses that are not public.
        local_settings: How a model runs on this machine: `max_batch_size` answers at the same time, `max_model_len` tokens
            of prompt and reply, `image_cache_bytes` for what it saw in images, `max_waiting` requests, `device`, `dtype`,
            `quantization` (`int8`, `fp8`); see `llama_vision.backends.local.LocalSettings`.
        http_client: Used for synchronous calls in place of the shared connection pool.
        http_async_client: Used for asynchronous calls in place of the shared pools.

    Raises:
        UnknownProviderError: There is no provider of this name.

    """

    model_config = ConfigDict(defer_build=False)

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with TranslateErrors():
            reply = self._backend().complete(self._request(messages, stop, kwargs))
        return to_result(reply, self._provider.name)

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with TranslateErrors():
            reply = await self._backend().acomplete(self._request(messages, stop, kwargs))
        return to_result(reply, self._provider.name)

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        writer = ChunkConverter(self._provider.name)
        with (
            TranslateErrors(),
            contextlib.closing(self._backend().stream(self._request(messages, stop, kwargs))) as events,
        ):
            for event in events:
                if (chunk := writer.to_chunk(event)) is not None:
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
        writer = ChunkConverter(self._provider.name)
        with TranslateErrors():
            async with contextlib.aclosing(
                self._backend().astream(self._request(messages, stop, kwargs))
            ) as events:
                async for event in events:
                    if (chunk := writer.to_chunk(event)) is not None:
                        if run_manager:
                            await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                        yield chunk

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
            strict: Ask the provider to keep to the schemas.
            parallel_tool_calls: Whether several tools may be called at once.
            response_format: The form of the final answer, as `create_agent` asks for it.
            **kwargs: Further arguments of each call.

        Returns:
            The model with the tools bound to it.

        """
        options = {
            "tools": [convert_to_openai_tool(tool, strict=strict) for tool in tools] or None,
            "tool_choice": tool_choice or None,
            "parallel_tool_calls": parallel_tool_calls,
            "response_format": response_format,
        }
        return self.bind(**{name: value for name, value in options.items() if value is not None}, **kwargs)

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
        """Make the model answer with an object.

        Its `stream` gives the object as it grows. An answer that can't be used raises `OutputParserException`, whose
        `llm_output` is what the model wrote; one that was cut off says so, and is not asked for again.

        Args:
            schema: A pydantic class, of which answers become instances; or a TypedDict or a JSON schema, whose answers
                are dictionaries. None, with `json_mode`, takes any JSON.
            method: `"json_schema"` and `"json_mode"` ask for OpenAI's `response_format`, `"function_calling"` makes the
                model call a tool, and `"prompt"` puts the schema into the prompt, which works with every model; so
                does `"json_mode"`. `"auto"` takes the provider's best one. With it, and with `"prompt"`, a reply is
                validated against the schema and requested again, with what was wrong, at most twice; the other methods
                send one request, and validate pydantic classes only.
            include_raw: Give `{"raw": message, "parsed": object, "parsing_error": error}` in place of raising.
            strict: Ask the provider to keep to the schema; not for `"json_mode"`.
            **kwargs: Further arguments of each call, such as `temperature`.

        Returns:
            A runnable that takes what the model takes, and gives objects.

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
