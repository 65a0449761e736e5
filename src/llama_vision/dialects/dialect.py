"""The wire format of a provider: how a request becomes an HTTP call, and how payloads become events."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.events import Event
from llama_vision.core.request import ChatRequest
from llama_vision.dialects.error_bodies import ErrorParser

_PATH_SEGMENT = re.compile(r"(?!\.+$)[\w.@:+~-]+", re.ASCII)
MAX_PAYLOAD_BYTES = 16 * 2**20
"""The largest payload that is read, decompressed: an event of a stream, or a whole body. 100,000 tokens have half a MB."""


@dataclass(frozen=True, slots=True)
class WireRequest:
    """One HTTP call, without address and key.

    Attributes:
        path: Follows the provider's base URL; `{account}` stands for the account's id.
        body: JSON, encoded; or what `content-type` says.
        headers: Beyond the usual ones.
        method: The HTTP method.
    """

    path: str
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    method: str = "POST"


def fill_in_model(path: str, model: str) -> str:
    """Put a model's name into a path, unescaped, as Cloudflare documents it for `@cf/meta/...`.

    Raises:
        UnsupportedInputError: It would lead to another address, to which the key would go.
    """
    if "{model}" in path and not all(_PATH_SEGMENT.fullmatch(segment) for segment in model.split("/")):
        raise UnsupportedInputError(
            f"The model's name is part of the address and can't be {model!r}: between slashes it has letters, digits "
            "and . _ - @ : + ~ only, and more than dots."
        )
    return path.replace("{model}", model)


class Decoder(Protocol):
    """Turns the payloads of one reply into events. A whole body is a single payload."""

    def feed(self, payload: bytes) -> list[Event]:
        """Decode the next payload, JSON text or the end mark of a stream.

        Raises:
            StreamError: It can't be read.
            StatusError: It reports an error of the provider.
        """
        ...

    @property
    def done(self) -> bool:
        """Whether the end mark has been received."""
        ...

    def close(self) -> list[Event]:
        """End the reply, and return its last events up to `Finished`.

        Raises:
            TruncatedStreamError: The reply was cut off.
        """
        ...


@runtime_checkable  # pydantic calls isinstance where a model has a field of type Provider
class Dialect(Protocol):
    """A wire format. One instance serves many replies at once: it holds facts and no state."""

    @property
    def path(self) -> str:
        """What follows the base URL; `{account}` and `{model}` stand for ids."""
        ...

    @property
    def errors(self) -> ErrorParser:
        """How error responses are read."""
        ...

    def encode(self, request: ChatRequest, *, stream: bool) -> WireRequest:
        """Encode a request, for a streamed reply or a whole one.

        Raises:
            UnsupportedInputError: A part of the request has no expression in this dialect.
        """
        ...

    def decoder(self, model: str, headers: Mapping[str, str], *, max_tokens: int | None = None) -> Decoder:
        """Make a decoder for one reply to a request for `model`; names of response headers are in lower case."""
        ...
