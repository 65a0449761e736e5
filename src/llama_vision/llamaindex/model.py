"""What `LlamaVision` is made of: its fields, and the calls behind its endpoints."""

import contextlib
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any, Literal, Self, cast

from llama_index.core.base.llms.generic_utils import (
    astream_chat_response_to_completion_response,
    chat_response_to_completion_response,
    stream_chat_response_to_completion_response,
)
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    MessageRole,
    TextBlock,
)
from llama_index.core.llms.function_calling import FunctionCallingLLM
from pydantic import ConfigDict, Field, InstanceOf, SecretStr, field_serializer, model_validator
from typing_extensions import override

from llama_vision.adaptation.token_estimate import estimate_tokens
from llama_vision.backends import DEFAULT_MAX_RETRIES, DEFAULT_TIMEOUT_S, create_backend
from llama_vision.backends.closing import CloseMixin
from llama_vision.core.backend import Backend
from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.events import Finished
from llama_vision.core.models import ModelInfo
from llama_vision.core.request import DEFAULT_MAX_TOKENS, ChatRequest
from llama_vision.images.settings import OverflowPolicy, build_image_settings
from llama_vision.llamaindex.convert import SnapshotConverter, to_messages, to_request, to_response
from llama_vision.llamaindex.images import ImageLike, image_block
from llama_vision.llamaindex.metadata import LlamaVisionMetadata, context_window_with_images
from llama_vision.providers import Provider, find_provider
from llama_vision.providers.defaults import default_model, default_provider
from llama_vision.structured.method import StructuredMethod


class LlamaVisionModel(CloseMixin, FunctionCallingLLM):
    """Everything but the endpoints; the fields are explained in `LlamaVision`."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    provider: str | InstanceOf[Provider] = Field(default_factory=default_provider)
    model: str = Field(default_factory=lambda fields: default_model(fields.get("provider", "local")))
    api_key: SecretStr | None = Field(default=None, exclude=True, repr=False)
    api_base: str | None = None
    account_id: str | None = None
    accept_license: bool = False
    temperature: float | None = None
    max_tokens: int | None = DEFAULT_MAX_TOKENS
    additional_kwargs: dict[str, Any] = Field(default_factory=dict)
    max_retries: int = DEFAULT_MAX_RETRIES
    timeout: float | None = DEFAULT_TIMEOUT_S
    structured_output: StructuredMethod = "auto"
    text_tool_calls: bool | None = None
    image_max_pixels: int | None = None
    image_format: Literal["auto", "jpeg", "png"] = "auto"
    image_quality: int = 85
    image_policy: OverflowPolicy = "error"
    image_allowed_hosts: list[str] | None = None
    image_private_networks: bool = False
    local_settings: dict[str, Any] | None = None
    default_headers: dict[str, str] | None = Field(default=None, exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _forget_class_name(cls, values: Any) -> Any:
        """Take what `to_dict` gives: it adds the name of the class."""
        return {name: value for name, value in values.items() if name != "class_name"}

    @model_validator(mode="after")
    def _check_provider(self) -> Self:
        find_provider(self.provider)
        return self

    @field_serializer("provider")
    def _provider_name(self, provider: str | Provider) -> str:
        return find_provider(provider).name

    @override
    def __getstate__(self) -> dict[str, Any]:
        """Leave keys out of pickles."""
        hidden = ("api_key", "default_headers")
        state = super().__getstate__()
        return {**state, "__dict__": {**state["__dict__"], **dict.fromkeys(hidden)}}

    @classmethod
    @override
    def class_name(cls) -> str:
        return "llama_vision_llm"

    @property
    @override
    def metadata(self) -> LlamaVisionMetadata:
        info = self._provider.model_info(self.model)
        return LlamaVisionMetadata(
            context_window=context_window_with_images(info.context_window),
            num_output=self.max_tokens or DEFAULT_MAX_TOKENS,
            is_chat_model=True,
            is_function_calling_model=self._takes_tools(info),
            model_name=self.model,
        )

    def _takes_tools(self, info: ModelInfo) -> bool:
        """Tell whether tools can be offered, natively or in words; the model on this machine knows them natively."""
        in_words = self.text_tool_calls is not False and self._provider.dialect is not None
        return in_words or (self._provider.supports("tools") and info.tools)

    def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        """Estimate the tokens of a conversation, without a network.

        Args:
            messages: The conversation; images count by their tiles.

        Returns:
            Tokens.

        """
        return estimate_tokens(to_messages(messages))

    @property
    def _provider(self) -> Provider:
        return find_provider(self.provider)

    @override
    def _backend(self) -> Backend:
        """Open the backend for one call; it holds no connection, and so reflects the fields as they are now."""
        return create_backend(
            self._provider,
            api_key=self.api_key.get_secret_value() if self.api_key else None,
            account_id=self.account_id,
            accept_license=self.accept_license,
            base_url=self.api_base,
            timeout=self.timeout,
            max_retries=self.max_retries,
            headers=self.default_headers,
            images=build_image_settings(
                max_pixels=self.image_max_pixels,
                image_format=self.image_format,
                quality=self.image_quality,
                on_too_many=self.image_policy,
                allowed_hosts=tuple(self.image_allowed_hosts or ()),
                private_networks=self.image_private_networks,
            ),
            local=self.local_settings,
        )

    def _request(self, messages: Sequence[ChatMessage], call: dict[str, Any]) -> ChatRequest:
        # Chat engines without a system prompt send an empty one, which would keep out the model's own.
        messages = [message for message in messages if not _is_empty_system_prompt(message)]
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

    # The work, undecorated: a public method that called another would report every call twice.

    def _chat(self, messages: Sequence[ChatMessage], options: dict[str, Any]) -> ChatResponse:
        return to_response(self._backend().complete(self._request(messages, options)), self._provider.name)

    async def _achat(self, messages: Sequence[ChatMessage], options: dict[str, Any]) -> ChatResponse:
        reply = await self._backend().acomplete(self._request(messages, options))
        return to_response(reply, self._provider.name)

    def _stream_chat(
        self, messages: Sequence[ChatMessage], options: dict[str, Any]
    ) -> Generator[ChatResponse]:
        """Check and translate at once, and make the call when the first piece is asked for."""
        request = self._request(messages, options)

        def responses() -> Generator[ChatResponse]:
            writer = SnapshotConverter(self._provider.name)
            last: ChatResponse | None = None
            with contextlib.closing(self._backend().stream(request)) as events:
                for event in events:
                    response = writer.to_response(event)
                    if isinstance(event, Finished):
                        last = response
                    elif response is not None:
                        yield response
            # Now that nothing is left to close: who refuses it, as agents do with arguments cut off, leaves the stream
            # open, and asyncio would close it from two ends at once and complain.
            if last is not None:
                yield last

        return responses()

    def _astream_chat(
        self, messages: Sequence[ChatMessage], options: dict[str, Any]
    ) -> AsyncGenerator[ChatResponse]:
        """As `_stream_chat`."""
        request = self._request(messages, options)

        async def responses() -> AsyncGenerator[ChatResponse]:
            writer = SnapshotConverter(self._provider.name)
            last: ChatResponse | None = None
            async with contextlib.aclosing(self._backend().astream(request)) as events:
                async for event in events:
                    response = writer.to_response(event)
                    if isinstance(event, Finished):
                        last = response
                    elif response is not None:
                        yield response
            if last is not None:
                yield last

        return responses()

    def _as_messages(
        self, prompt: str, formatted: bool, image_documents: Sequence[ImageLike] | None
    ) -> list[ChatMessage]:
        """Make a user's turn of a prompt. Images come first: words before an image can't see it."""
        if not isinstance(cast("object", formatted), bool):  # a list of images would be dropped in silence
            raise UnsupportedInputError("Pass images by name: complete(prompt, image_documents=[...]).")
        if not formatted and self.completion_to_prompt is not None:
            prompt = self.completion_to_prompt(prompt)
        images = [image_block(source) for source in image_documents or ()]
        return [ChatMessage(role=MessageRole.USER, blocks=[*images, TextBlock(text=prompt)])]

    def _complete(
        self, prompt: str, formatted: bool, images: Sequence[ImageLike] | None, options: dict[str, Any]
    ) -> CompletionResponse:
        messages = self._as_messages(prompt, formatted, images)
        return chat_response_to_completion_response(self._chat(messages, options))

    async def _acomplete(
        self, prompt: str, formatted: bool, images: Sequence[ImageLike] | None, options: dict[str, Any]
    ) -> CompletionResponse:
        messages = self._as_messages(prompt, formatted, images)
        return chat_response_to_completion_response(await self._achat(messages, options))

    def _stream_complete(
        self, prompt: str, formatted: bool, images: Sequence[ImageLike] | None, options: dict[str, Any]
    ) -> CompletionResponseGen:
        messages = self._as_messages(prompt, formatted, images)
        return stream_chat_response_to_completion_response(self._stream_chat(messages, options))

    def _astream_complete(
        self, prompt: str, formatted: bool, images: Sequence[ImageLike] | None, options: dict[str, Any]
    ) -> CompletionResponseAsyncGen:
        messages = self._as_messages(prompt, formatted, images)
        return astream_chat_response_to_completion_response(self._astream_chat(messages, options))


def _is_empty_system_prompt(message: ChatMessage) -> bool:
    return message.role is MessageRole.SYSTEM and all(
        isinstance(block, TextBlock) and not block.text.strip() for block in message.blocks
    )
