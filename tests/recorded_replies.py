"""The replies in the cassettes, as bytes, for tests that break them."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.cassette_files import ReadableYaml

CASSETTES = Path(__file__).parent.parent / "cassettes"


@dataclass(frozen=True, slots=True)
class RecordedReply:
    """A reply of a provider.

    Attributes:
        name: The cassette's, with its provider.
        provider: The provider's name.
        streamed: Whether it is an event stream.
        body: As it came.
    """

    name: str
    provider: str
    streamed: bool
    body: bytes


@cache
def recorded_replies() -> list[RecordedReply]:
    """Read the successful replies of all cassettes."""
    replies = []
    for path in sorted(CASSETTES.glob("*/*.yaml")):
        for interaction in ReadableYaml.deserialize(path.read_text(encoding="utf-8"))["interactions"]:
            response = interaction["response"]
            body = response["body"]["string"]
            body = body if isinstance(body, bytes) else body.encode()
            if response["status"]["code"] == 200:
                name = f"{path.parent.name}/{path.stem}"
                provider = path.parent.name.removeprefix("emulator-")
                replies.append(RecordedReply(name, provider, body.startswith(b"data:"), body))
    return replies
