"""What `ChatLlamaVision` is made of: its fields, how LangChain saves, traces and counts it, and how requests are made."""

from collections.abc import Sequence
from typing import Any, Literal, Self, cast

import httpx
from langchain_core.language_models import LangSmithParams, ModelProfile
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field, InstanceOf, SecretStr, field_validator, model_validator
from typing_extensions import override

from llama_vision.adaptation.token_estimate import estimate_text_tokens, estimate_tokens
from llama_vision.backends import DEFAULT_MAX_RETRIES, DEFAULT_TIMEOUT_S, create_backend
from llama_vision.backends.closing import CloseMixin
from llama_vision.core.backend import Backend
from llama_vision.core.call_options import SAMPLING_OPTIONS, parse_tool
from llama_vision.core.request import DEFAULT_MAX_TOKENS, ChatRequest
from llama_vision.images.settings import OverflowPolicy, build_image_settings
from llama_vision.langchain.api_keys import ProviderKey, key_from_environment, resolve_key
from llama_vision.langchain.convert import to_messages, to_request
from llama_vision.langchain.errors import TranslateErrors
from llama_vision.langchain.profile import DerivedProfile, model_profile
from llama_vision.langchain.results import combine_llm_outputs
from llama_vision.providers import Provider, find_provider
from llama_vision.providers.defaults import default_model, default_provider
from llama_vision.version import __version__


def _record_of(fields: dict[str, Any]) -> Provider:
    with TranslateErrors():
        return find_provider(fields.get("provider", "local"))


class ChatLlamaVisionModel(CloseMixin, BaseChatModel):
    """Everything but the endpoints; the fields are explained in `ChatLlamaVision`."""

    model_config = ConfigDict(
        populate_by_name=True,
        extra="forbid",
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        defer_build=True,  # nobody makes one of these
    )

    provider: str | InstanceOf[Provider] = Field(default_factory=default_provider)
    model_name: str = Field(default_factory=lambda fields: default_model(_record_of(fields)), alias="model")
    llama_vision_api_key: SecretStr | None = Field(
        default_factory=lambda fields: key_from_environment(_record_of(fields)), alias="api_key"
    )
    base_url: str | None = None
    account_id: str | None = None
    accept_license: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = DEFAULT_MAX_TOKENS
    stop: list[str] | None = Field(default=None, alias="stop_sequences")
    timeout: float | httpx.Timeout | None = DEFAULT_TIMEOUT_S
    max_retries: int = DEFAULT_MAX_RETRIES
    # None and not False: LangChain takes what is set, also by `configurable_fields`, for an order not to stream.
    streaming: bool | None = None
    stream_usage: bool | None = None
    text_tool_calls: bool | None = None
    image_max_pixels: int | None = None
    image_format: Literal["auto", "jpeg", "png"] = "auto"
    image_quality: int = 85
    image_policy: OverflowPolicy = "error"
    image_allowed_hosts: list[str] | None = None
    image_private_networks: bool = False
    local_settings: dict[str, Any] | None = None
    # Headers may hold keys of other companies, so they stay out of what is printed and saved.
    default_headers: dict[str, str] | None = Field(default=None, repr=False, exclude=True)
    extra_body: dict[str, Any] | None = None
    http_client: httpx.Client | None = Field(default=None, repr=False, exclude=True)
    http_async_client: httpx.AsyncClient | None = Field(default=None, repr=False, exclude=True)

    @field_validator("profile", mode="before")
    @classmethod
    def _find_profile_anew(cls, profile: Any) -> Any:
        """Forget a profile that was looked up: `configurable_fields` hands it on to other models and providers."""
        return None if isinstance(profile, DerivedProfile) else profile

    @model_validator(mode="after")
    def _check_provider(self) -> Self:
        """Refuse a provider that is not known, and note whose the key is."""
        provider, key = self._provider, self.llama_vision_api_key
        if key is not None and not isinstance(key, ProviderKey):
            self.llama_vision_api_key = ProviderKey(key.get_secret_value(), provider)
        return self

    @model_validator(mode="after")
    def _set_llama_vision_version(self) -> Self:
        self._add_version("llama-vision", __version__)
        return self

    @property
    def model(self) -> str:
        """The model's name, as it was given."""
        return self.model_name

    @property
    @override
    def _llm_type(self) -> str:
        return "llama-vision"

    @property
    @override
    def _identifying_params(self) -> dict[str, Any]:
        """What tells two models apart in caches and traces."""
        return {
            "provider": self._provider.name,
            "model": self.model_name,
            "base_url": self.base_url or self._provider.base_url,
            **{
                name: value for name in sorted(SAMPLING_OPTIONS) if (value := getattr(self, name)) is not None
            },
            "stop": self.stop,
            "extra_body": self.extra_body,
        }

    @override
    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        """Tell records of the user's own apart, too, which LangChain can't: two would share answers in a cache."""
        own = "" if isinstance(self.provider, str) else f"---{self._identifying_params}"
        return super()._get_llm_string(stop=stop, **kwargs) + own

    @classmethod
    @override
    def is_lc_serializable(cls) -> bool:
        return True

    @property
    @override
    def lc_secrets(self) -> dict[str, str]:
        return {"llama_vision_api_key": next(iter(self._provider.key_env), "LLAMA_VISION_API_KEY")}

    @override
    def __getstate__(self) -> dict[Any, Any]:
        """Leave out keys and connections: the one does not belong in a pickle, the other can't be in one."""
        state = super().__getstate__()
        hidden = ("llama_vision_api_key", "default_headers", "http_client", "http_async_client")
        return {**state, "__dict__": {**state["__dict__"], **dict.fromkeys(hidden)}}

    @override
    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=self.stop if stop is None else stop, **kwargs)
        params["ls_provider"] = self._provider.name
        return params

    @override
    def _combine_llm_outputs(self, _llm_outputs: list[dict[str, Any] | None], /) -> dict[str, Any]:
        return combine_llm_outputs(_llm_outputs)

    @override
    def _resolve_model_profile(self) -> ModelProfile:
        words = self.text_tool_calls is not False
        found = DerivedProfile(model_profile(self._provider, self.model_name, text_tool_calls=words))
        return cast("ModelProfile", found)

    @override
    def get_num_tokens(self, text: str) -> int:
        """Estimate the tokens of a text, without a network."""
        return estimate_text_tokens(text)

    @override
    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Estimate the tokens of a conversation, without a network.

        Args:
            messages: The conversation; images count by their tiles.
            tools: Tools offered with it, in any form that LangChain knows.

        Returns:
            Tokens.

        """
        with TranslateErrors():
            offered = [parse_tool(convert_to_openai_tool(tool)) for tool in tools or ()]
            return estimate_tokens(to_messages(messages), offered)

    @property
    def _provider(self) -> Provider:
        with TranslateErrors():
            return find_provider(self.provider)

    @override
    def _backend(self) -> Backend:
        """Open the backend for one call; it holds no connection, and so reflects the fields as they are now."""
        return create_backend(
            self._provider,
            api_key=resolve_key(self.llama_vision_api_key, self._provider),
            account_id=self.account_id,
            accept_license=self.accept_license,
            base_url=self.base_url,
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
            http_client=self.http_client,
            http_async_client=self.http_async_client,
        )

    def _request(
        self, messages: list[BaseMessage], stop: list[str] | None, call: dict[str, Any]
    ) -> ChatRequest:
        options: dict[str, Any] = {name: getattr(self, name) for name in SAMPLING_OPTIONS}
        options["model"] = self.model_name
        options["stop"] = self.stop if stop is None else stop
        options["stream_usage"] = self.stream_usage
        options["text_tool_calls"] = self.text_tool_calls
        options["extra_body"] = self.extra_body
        return to_request(self._provider, messages, {**options, **call})
