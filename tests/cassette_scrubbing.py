"""What never gets into a cassette: keys, accounts, pictures. Taken out when recording, and looked for by the tests."""

import base64
import hashlib
import os
import re

from vcr.request import Request

from llama_vision.providers import PROVIDERS

KEPT_REQUEST_HEADERS = {"authorization", "content-type"}
# The others name an account, a request or a server. Two hosts tell the cost of a call in a header.
KEPT_RESPONSE_HEADERS = {
    "content-type",
    "content-encoding",
    "retry-after",
    "x-aimlapi-usd-spent",
    "x-cost-cents",
}
PLACEHOLDER = "PLACEHOLDER"

_KEY = (
    r"(?<![A-Za-z0-9])(?:(?:sk-|pk-|nvapi-|gsk_|hf_|fw_|cfut_|cfat_|jwt:)[A-Za-z0-9._-]{12,}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9._-]{8,}|Bearer\s+[A-Za-z0-9._~+/-]{12,})"
)
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_DATA_URL = re.compile(rb"data:([a-z]+/[a-z0-9.+-]+);base64,([A-Za-z0-9+/=]*)", re.IGNORECASE)
_BYTE_ARRAY = re.compile(rb'("image"\s*:\s*)\[([\d\s,]+)\]')  # Cloudflare's way to send an image
_REPLACED = (
    (rb"/accounts/[^/\s\"'?\\]+", b"/accounts/ACCOUNT"),
    (rb"(gateway\.ai\.cloudflare\.com/v1)/[^/\s\"'?]+/[^/\s\"'?]+", rb"\1/ACCOUNT/GATEWAY"),
    (rb'(?i)("(?:request_?id|ray_?id|trace_?id)"\s*:\s*)"[^"]*"', rb'\1"REQUEST_ID"'),
    (rb"\(" + _UUID.encode() + rb"\)", b"(REQUEST_ID)"),  # at the end of Cloudflare's error texts
    (_KEY.encode(), PLACEHOLDER.encode()),
)

_LEAKS = {
    "a key": re.compile(_KEY),
    # Tokens without a mark: Cloudflare's are 40 characters, DeepInfra's 32, of all kinds.
    "what looks like a token": re.compile(
        r"(?<![\w-])(?=[\w-]*[a-z])(?=[\w-]*[A-Z])(?=[\w-]*\d)(?:[A-Za-z0-9_]{32,}|[A-Za-z0-9_-]{40})(?![\w-])"
    ),
    "an account": re.compile(r"/accounts/(?!ACCOUNT\b)|(?<![0-9a-f-])[0-9a-f]{32}(?![0-9a-f])"),
    "a request's id": re.compile(
        r"(?i)\b(?:request_?id|ray_?id|trace_?id)['\"]?:\s*(?!['\"]?REQUEST_ID)\S|\(" + _UUID + r"\)"
    ),
    "an image": re.compile(r";base64,[A-Za-z0-9+/]|[A-Za-z0-9+/]{256,}"),
}


def without_secrets(request: Request) -> Request:
    """Take out of a request what no cassette may hold: before it is kept, and before it is compared."""
    request.headers = {
        name: PLACEHOLDER if name.lower() == "authorization" else value
        for name, value in request.headers.items()
        if name.lower() in KEPT_REQUEST_HEADERS
    }
    request.uri = scrubbed(request.uri.encode()).decode()
    # The emulator has another port each time.
    request.uri = re.sub(r"^(http://127\.0\.0\.1):\d+", r"\1", request.uri)
    if isinstance(request.body, bytes):
        request.body = scrubbed(request.body)
    return request


def without_secrets_in_reply(response: dict) -> dict:
    """Take out of a response what no cassette may hold."""
    headers = response["headers"]
    response["headers"] = {name: headers[name] for name in headers if name.lower() in KEPT_RESPONSE_HEADERS}
    body = response["body"]["string"]
    if isinstance(body, bytes):
        response["body"]["string"] = scrubbed(body)
    return response


def scrubbed(content: bytes) -> bytes:
    """Put names in the place of keys and accounts, and hashes in the place of images. Twice is as once."""
    for secret in secrets_in_environment():
        content = content.replace(secret.encode(), PLACEHOLDER.encode())
    content = _DATA_URL.sub(lambda url: b"data:%s;sha256,%s" % (url[1], _hash(_decoded(url[2]))), content)
    content = _BYTE_ARRAY.sub(lambda array: b'%s"sha256,%s"' % (array[1], _hash(_joined(array[2]))), content)
    for pattern, replacement in _REPLACED:
        content = re.sub(pattern, replacement, content)
    return content


def leaks(text: str) -> list[str]:
    """Say what a cassette holds that it must not."""
    found = [name for name, pattern in _LEAKS.items() if pattern.search(text)]
    return found + ["a key of the environment"] * any(secret in text for secret in secrets_in_environment())


def secrets_in_environment() -> list[str]:
    """Find the keys and accounts of all providers; what is shorter than any key would be found in plain words."""
    names = {name for provider in PROVIDERS.values() for name in (*provider.key_env, *provider.account_env)}
    values = {os.environ.get(name, "").strip() for name in names}
    return sorted((value for value in values if len(value) >= 8), key=len, reverse=True)


def _hash(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _decoded(text: bytes) -> bytes:
    """Get the image itself, so that its hash is that of its file; of broken base64 the text."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return text


def _joined(numbers: bytes) -> bytes:
    """As `_decoded`, of an array of bytes."""
    try:
        return bytes(int(number) for number in numbers.split(b","))
    except ValueError:
        return numbers
