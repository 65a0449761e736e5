"""Refuses what may not use the server, before anything of it is read: keys, foreign web pages, rebound host names."""

import hmac
from urllib.parse import urlsplit

from starlette.requests import Request

from llama_vision.core.errors import AuthenticationError, PermissionDeniedError
from llama_vision.serve.settings import ServeSettings

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def check_access(request: Request, settings: ServeSettings) -> None:
    """Check host, origin and key.

    Raises:
        PermissionDeniedError: A web page of another origin sent it, or a host name that was made to point here.
        AuthenticationError: The key is missing or wrong.
    """
    host = request.headers.get("host", "")
    # A page of any site can send requests to its own name, and let that name point to 127.0.0.1 (DNS rebinding).
    if settings.is_loopback and (urlsplit(f"//{host}").hostname or "") not in _LOCAL_NAMES | {settings.host}:
        raise PermissionDeniedError(
            "This server is for its own machine: ask for it as localhost or 127.0.0.1."
        )
    origin = request.headers.get("origin")
    if origin is not None and not _is_allowed(origin, host, settings):
        raise PermissionDeniedError(
            f"Web pages of {origin[:100]} may not use this server; --allow-origin allows one."
        )
    if settings.api_key is not None and not _has_key(request, settings.api_key):
        raise AuthenticationError("The API key is missing or wrong: send it as 'Authorization: Bearer ...'.")


def _is_allowed(origin: str, host: str, settings: ServeSettings) -> bool:
    if "*" in settings.allowed_origins or origin in settings.allowed_origins:
        return True
    return urlsplit(origin).netloc == host


def _has_key(request: Request, api_key: str) -> bool:
    """Compare in constant time, so that the time it takes tells nothing of the key."""
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    given = bearer.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    return hmac.compare_digest(given.encode(), api_key.encode())


def cors_headers(request: Request, settings: ServeSettings) -> dict[str, str]:
    """Return the headers that let a web page of an allowed origin read the response."""
    origin = request.headers.get("origin")
    if origin is None or not ("*" in settings.allowed_origins or origin in settings.allowed_origins):
        return {}
    return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
