"""What the contract is about: one provider, asked through one adapter in one style."""

from dataclasses import dataclass
from typing import Any

import pytest

from llama_vision import Message, Provider, Text
from tests.contract.abilities import reason_against
from tests.contract.adapters import Answer
from tests.emulator import Emulator

HOSTED = ("deepinfra", "aimlapi", "aigateway", "cloudflare", "cloudflare-openai", "openai-compatible")


@dataclass
class Subject:
    """One provider, adapter and style."""

    emulator: Emulator
    record: Provider
    adapter: Any
    style: str

    def ask(self, *messages: Any, **options: Any) -> Answer:
        """Ask; a text is the user's, and a message may be the framework's own."""
        asked = [Message("user", (Text(each),)) if isinstance(each, str) else each for each in messages]
        return self.adapter.ask(self.emulator, self.record.name, self.style, asked, **options)

    @property
    def streamed(self) -> bool:
        """Whether the answer is asked for in pieces."""
        return self.style in ("stream", "astream")

    def need(self, ability: str) -> None:
        """Leave the test out where the record says that it can't be."""
        if reason := reason_against(self.record, ability):
            pytest.skip(f"{self.record.title} {reason}")
