"""What arrived at a scripted server."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from llama_vision.core.json_types import as_mapping


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One request, in the words of chat completions.

    Attributes:
        body: All that was asked for.
        headers: Names in lower case.

    """

    body: dict[str, Any]
    headers: dict[str, str] = field(repr=False)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation, each turn with `role` and `content`."""
        return self.body.get("messages") or []

    @property
    def text(self) -> str:
        """The words of the last turn."""
        return "\n".join(
            block.get("text") or "" for block in _blocks(self.messages[-1:]) if block.get("type") == "text"
        )

    @property
    def images(self) -> list[bytes]:
        """The files of all images that came with the request, in order, just as the model gets them."""
        return [base64.b64decode(url.partition(",")[2]) for url in self.image_urls if url.startswith("data:")]

    @property
    def image_urls(self) -> list[str]:
        """The addresses of all images, in order; for those that came with the request a data URL."""
        return [
            as_mapping(block.get("image_url")).get("url") or ""
            for block in _blocks(self.messages)
            if block.get("type") == "image_url"
        ]

    @property
    def tools(self) -> list[str]:
        """The names of the tools that are offered."""
        return [as_mapping(tool.get("function")).get("name") or "" for tool in self.body.get("tools") or ()]

    @property
    def streamed(self) -> bool:
        """Whether the answer is to come in pieces."""
        return bool(self.body.get("stream"))


def _blocks(messages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for message in messages:
        content = message.get("content")
        yield from [{"type": "text", "text": content}] if isinstance(content, str) else content or ()
