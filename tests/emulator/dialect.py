"""What an emulator has to know about a provider."""

from typing import Any, Protocol

from tests.emulator.answers import Answer
from tests.emulator.received import Received


class Dialect(Protocol):
    """A provider's documented ways; each provider has a file.

    An emulator makes a new one whenever it begins afresh, so that a dialect may remember things, such as a license.

    Attributes:
        base_path: The path of the provider's `base_url`.
        call_paths: What is called below it, in Starlette's notation.
    """

    base_path: str
    call_paths: tuple[str, ...]

    def refuse(self, received: Received, api_key: str | None) -> Answer | None:
        """Check a request as strictly as the documentation allows; None where nothing is wrong."""

    def reply(self, received: Received) -> dict[str, Any]:
        """Say something of its own to a request, as a chat completions reply."""

    def encode(self, reply: dict[str, Any], received: Received) -> Answer:
        """Put a chat completions reply on the wire in this dialect, whole or streamed, as the request asks."""

    def error(self, status: int, message: str = "", code: int | None = None) -> Answer:
        """Say that something failed, in the provider's own words where there are no others.

        A code is taken where the provider has codes of its own.
        """

    def lost(self, status: int, path: str) -> Answer:
        """Answer what went to an address or with a method that is not there."""

    def headers(self, received: Received) -> dict[str, str]:
        """Make the headers that every answer has."""
