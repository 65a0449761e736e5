"""Requests that a scripted server received."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from llama_vision.core.json_types import as_mapping


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One request to `/chat/completions`.

    Attributes:
        body: The JSON body.
        headers: By name, in lower case.
    """

    body: dict[str, Any]
    headers: dict[str, str] = field(repr=False)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation: dictionaries with `role` and `content`."""
        return self.body.get("messages") or []

    @property
    def text(self) -> str:
        """The text of the last message."""
        return "\n".join(
            block.get("text") or "" for block in _blocks(self.messages[-1:]) if block.get("type") == "text"
        )

    @property
    def images(self) -> list[bytes]:
        """The bytes of all embedded images, in order, as the model gets them."""
        return [base64.b64decode(url.partition(",")[2]) for url in self.image_urls if url.startswith("data:")]

    @property
    def image_urls(self) -> list[str]:
        """The URLs of all images, in order; a data URL for embedded ones."""
        return [
            as_mapping(block.get("image_url")).get("url") or ""
            for block in _blocks(self.messages)
            if block.get("type") == "image_url"
        ]

    @property
    def tools(self) -> list[str]:
        """The names of the offered tools."""
        return [as_mapping(tool.get("function")).get("name") or "" for tool in self.body.get("tools") or ()]

    @property
    def streamed(self) -> bool:
        """Whether a streamed reply is requested."""
        return bool(self.body.get("stream"))


def _blocks(messages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for message in messages:
        content = message.get("content")
        yield from [{"type": "text", "text": content}] if isinstance(content, str) else content or ()
