"""What a dialect is: how a request becomes a call, and how the answer's payloads become events."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from llama_vision.core.events import Event
from llama_vision.core.request import ChatRequest


@dataclass(frozen=True, slots=True)
class WireRequest:
    """One HTTP call, without address and key.

    Attributes:
        path: What follows the provider's base URL; `{account}` stands for the account's id.
        body: JSON, encoded.
        headers: Beyond the usual ones.

    """

    path: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


class Decoder(Protocol):
    """Turns the payloads of one reply into events. A whole body is a single payload."""

    def feed(self, payload: bytes) -> list[Event]:
        """Take in the next payload.

        Args:
            payload: JSON text, or the end mark of a stream.

        Returns:
            The events it holds.

        Raises:
            StreamError: It can't be read.
            StatusError: It is the provider's word for a failure.

        """
        ...

    @property
    def done(self) -> bool:
        """Whether the provider has said that nothing more comes."""
        ...

    def close(self) -> list[Event]:
        """Say that no more payloads come.

        Returns:
            The last events, `Finished` at the end.

        Raises:
            TruncatedStreamError: The reply was cut off.

        """
        ...


@runtime_checkable  # pydantic wants to ask, where a model has a Provider among its fields
class Dialect(Protocol):
    """A wire format. One instance serves many replies at once: it holds facts and no state."""

    def encode(self, request: ChatRequest, *, stream: bool) -> WireRequest:
        """Put a request into the provider's words.

        Args:
            request: What to ask.
            stream: Whether the answer is to come in pieces.

        Raises:
            UnsupportedInputError: A part of the request has no expression in this dialect.

        """
        ...

    def decoder(self, model: str, headers: Mapping[str, str], *, max_tokens: int | None = None) -> Decoder:
        """Begin to read an answer.

        Args:
            model: The model that was asked.
            headers: Of the answer; names in lower case.
            max_tokens: What the reply was limited to.

        """
        ...
