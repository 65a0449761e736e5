"""What arrived at an emulator."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Received:
    """One request.

    Attributes:
        method: Such as `POST`.
        path: All of it, from the slash on.
        headers: Names in lower case.
        content: The body as it came.
        client_port: Tells connections apart.
        at: Seconds on the monotonic clock.
        query: What follows the path's question mark, by name.
    """

    method: str
    path: str
    headers: dict[str, str]
    content: bytes = field(repr=False)
    client_port: int
    at: float
    query: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> Any:
        """The body, parsed."""
        return json.loads(self.content)

    @property
    def streamed(self) -> bool:
        """Whether the answer is to come in pieces."""
        return bool(self.body.get("stream"))

    @property
    def image_urls(self) -> list[str]:
        """All addresses and data URLs of images, in order."""
        return [
            block["image_url"]["url"]
            for message in self.body.get("messages", ())
            if isinstance(message.get("content"), list)
            for block in message["content"]
            if block.get("type") == "image_url"
        ]

    @property
    def images(self) -> list[bytes]:
        """The files of all images that were sent with the request, in order."""
        beside = self.body.get("image")  # Cloudflare's: the bytes as numbers, or a data URL
        if isinstance(beside, list):
            return [bytes(beside)]
        urls = [beside] if beside else self.image_urls
        return [base64.b64decode(url.partition(",")[2]) for url in urls if url.startswith("data:")]
