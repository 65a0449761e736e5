"""Plain requests to an emulator, for the tests of the emulators themselves."""

import base64
import io
import json
from typing import Any

import httpx
import PIL.Image

from tests.emulator.server import Emulator


def post(emulator: Emulator, path: str, body: Any, **headers: str) -> httpx.Response:
    """Send a body with the emulator's key, unless `authorization` says otherwise; underscores become hyphens."""
    headers = {"authorization": f"Bearer {emulator.api_key}", **headers}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(emulator.base_url + path, json=body, headers=named, timeout=10)


def events(response: httpx.Response) -> list[Any]:
    """Read a stream that ends as it should: the payloads before the end mark, without comments."""
    assert response.headers["content-type"] == "text/event-stream"
    blocks = [block for block in response.text.split("\n\n") if block and not block.startswith(":")]
    payloads = [block.removeprefix("data: ") for block in blocks]
    assert payloads.pop() == "[DONE]"
    return [json.loads(payload) for payload in payloads]


def image(side: int = 12, kind: str = "PNG") -> bytes:
    """Make a file of one colour."""
    file = io.BytesIO()
    PIL.Image.new("RGB", (side, side), "red").save(file, kind)
    return file.getvalue()


def data_url(content: bytes, media_type: str = "image/png") -> str:
    """Write a file into an address."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def image_part(url: str) -> dict[str, Any]:
    """Make a part of a message."""
    return {"type": "image_url", "image_url": {"url": url}}
