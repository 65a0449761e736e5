"""What the chat models of both adapters share: pydantic fields, and the backend that these describe."""

from typing import Any, Literal

import httpx
from pydantic import BaseModel, Field, InstanceOf, model_validator

from llama_vision.backends import DEFAULT_MAX_RETRIES, DEFAULT_TIMEOUT_S, create_backend
from llama_vision.core.backend import Backend, CloseMixin
from llama_vision.core.request import DEFAULT_MAX_TOKENS
from llama_vision.images.settings import DOCUMENT_MAX_PAGES, OverflowPolicy, build_image_settings
from llama_vision.providers.defaults import default_provider
from llama_vision.providers.provider import Provider


class BackendFields(CloseMixin, BaseModel):
    """Base of the adapters' classes, which document the fields."""

    provider: str | InstanceOf[Provider] = Field(default_factory=default_provider)
    account_id: str | None = None
    accept_license: bool = False
    temperature: float | None = None
    max_tokens: int | None = DEFAULT_MAX_TOKENS
    timeout: float | InstanceOf[httpx.Timeout] | None = DEFAULT_TIMEOUT_S
    max_retries: int = DEFAULT_MAX_RETRIES
    text_tool_calls: bool | None = None
    image_max_pixels: int | None = None
    image_format: Literal["auto", "jpeg", "png"] = "auto"
    image_quality: int = 85
    image_policy: OverflowPolicy = "error"
    image_allowed_hosts: list[str] | None = None
    image_private_networks: bool = False
    document_max_pages: int = DOCUMENT_MAX_PAGES
    document_text: bool = True
    local_settings: dict[str, Any] | None = None
    # Headers may hold keys, so they are left out of repr and dumps.
    default_headers: dict[str, str] | None = Field(default=None, repr=False, exclude=True)
    http_client: InstanceOf[httpx.Client] | None = Field(default=None, repr=False, exclude=True)
    http_async_client: InstanceOf[httpx.AsyncClient] | None = Field(default=None, repr=False, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _choose_provider(cls, values: Any) -> Any:
        """Take an address without a provider for that of an OpenAI-compatible endpoint."""
        fields: dict[str, Any] = dict(values)
        address = fields.get("base_url") or fields.get("api_base")
        return fields if "provider" in fields else {"provider": default_provider(address), **fields}

    def _create_backend(self, provider: Provider, api_key: str | None, base_url: str | None) -> Backend:
        """Create the backend of one call; it holds no connection, so it reflects the fields as they are now."""
        return create_backend(
            provider,
            api_key=api_key,
            account_id=self.account_id,
            accept_license=self.accept_license,
            base_url=base_url,
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
                document_max_pages=self.document_max_pages,
                document_text=self.document_text,
            ),
            local=self.local_settings,
            http_client=self.http_client,
            http_async_client=self.http_async_client,
        )
