"""The download itself: each address is checked, and the connection goes to the address that was checked.

There is one way for sync and async, on an event loop: httpx's time-outs are for one read each, and only a loop can end
everything at a given time, look-ups and answers that come byte by byte included.

A transport is used, not a client: it knows no cookies, redirects, proxies from the environment or `.netrc`, and does not
write whole addresses, which may be signed, to the log.
"""

import asyncio
import re
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from functools import lru_cache
from typing import Any, TypeVar

import httpx

from llama_vision.core.errors import ImageError
from llama_vision.images.fetch import FetchPolicy, Resolve, redact_url
from llama_vision.images.public_addresses import (
    non_public_reason,
    normalize_host,
    parse_ip,
    private_name_reason,
)
from llama_vision.version import __version__

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OK = 200
_HIGHEST_PORT = 65535
_HEADERS = {
    "User-Agent": f"llama-vision/{__version__}",
    "Accept": "image/*",
    "Accept-Encoding": "identity",  # images are compressed already
    "Connection": "close",
}
_ALLOW = (
    "If you trust whoever gave this address, allow it with image_private_networks=True, "
    "or only its host with image_allowed_hosts=[...]."
)
_JOIN_TIMEOUT_S = 0.2

_Result = TypeVar("_Result")


class _RefusedError(Exception):
    """Why an address is not asked, or its answer not taken; whoever knows the address adds it."""


def run_in_thread(work: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
    """Wait for asynchronous work, in a thread: the caller's may be running a loop already.

    Args:
        work: Makes the coroutine.

    Returns:
        What the coroutine returns. A look-up that hangs is left behind in the thread.

    """
    result: Future[_Result] = Future()
    loop = asyncio.new_event_loop()  # here, so that nobody waits for a thread that could not make one

    async def run() -> None:
        try:
            result.set_result(await work())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is waited for
            result.set_exception(error)

    def serve() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(run())

    thread = threading.Thread(target=serve, name="llama-vision-fetch", daemon=True)
    thread.start()
    try:
        return result.result()
    finally:
        thread.join(_JOIN_TIMEOUT_S)


async def download(url: str, options: FetchPolicy, resolve: Resolve | None = None) -> bytes:
    """Download what is at an address.

    Args:
        url: The address, from anyone.
        options: What may be fetched.
        resolve: Finds a name's addresses; the system by default.

    Returns:
        The content, whatever it is.

    Raises:
        ImageError: The address is refused, or there is no usable answer.

    """
    try:
        async with asyncio.timeout(options.timeout_s) as limit:
            return await _follow_redirects(url, options, resolve or _resolve, limit.when() or 0)
    except TimeoutError as error:
        why = f"it took longer than {options.timeout_s:g} s. Download it yourself and pass its bytes."
        raise ImageError(f"The image at {redact_url(url)} can't be fetched: {why}") from error


async def _follow_redirects(first: str, options: FetchPolicy, resolve: Resolve, deadline: float) -> bytes:
    """Follow redirects by hand, for each may lead to where the first address may not."""
    here: httpx.URL | None = None
    target = first
    for hop in range(options.max_redirects + 1):
        place = f"{redact_url(target)} (to which {redact_url(first)} redirects)" if hop else redact_url(first)
        try:
            here = _parse_url(target, here)
            found = await _get_from_any(
                here, await _resolve_checked(here, options, resolve), options.max_bytes, deadline
            )
        except _RefusedError as error:
            raise ImageError(f"The image at {place} can't be fetched: {error}") from error
        if isinstance(found, bytes):
            return found
        target = found
    why = f"there are more than {options.max_redirects} redirects. Download it yourself and pass its bytes."
    raise ImageError(f"The image at {redact_url(first)} can't be fetched: {why}")


def _parse_url(target: str, previous: httpx.URL | None) -> httpx.URL:
    """Read an address, which may be relative to the previous one, and check all but where it leads."""
    try:
        url = previous.join(target) if previous else httpx.URL(target)
    except (httpx.InvalidURL, ValueError):  # its text may hold a part of a password
        raise _RefusedError("it is not a valid URL.") from None
    if url.scheme not in {"http", "https"}:
        raise _RefusedError("only http and https addresses are fetched.")
    if previous and previous.scheme == "https" and url.scheme == "http":
        raise _RefusedError("it leads from https to http, where anyone on the way can change it.")
    if url.userinfo:
        raise _RefusedError(
            "it holds a user name or password. Download the image yourself and give its bytes."
        )
    if url.port is not None and not 0 < url.port <= _HIGHEST_PORT:
        raise _RefusedError("its port is out of range.")
    try:
        return url.copy_with(host=normalize_host(url.raw_host.decode("ascii")), fragment=None)
    except (httpx.InvalidURL, ValueError) as error:
        raise _RefusedError(f"{error}.") from None


async def _get_from_any(
    url: httpx.URL, addresses: Sequence[str], max_bytes: int, until: float
) -> bytes | str:
    """Ask the first address that takes a connection, for the content or where it redirects to."""
    trouble: Exception | None = None
    for place, address in enumerate(addresses):
        # One that swallows everything must leave time for the others.
        share = (until - asyncio.get_running_loop().time()) / (len(addresses) - place)
        try:
            return await _get(url, address, share if place + 1 < len(addresses) else None, max_bytes)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            trouble = error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _RefusedError(f"the answer broke off: {error or type(error).__name__}.") from error
    raise _RefusedError(f"there is no connection: {trouble or type(trouble).__name__}.") from trouble


async def _resolve_checked(url: httpx.URL, options: FetchPolicy, resolve: Resolve) -> Sequence[str]:
    """Find the addresses to which a connection may be made. One bad answer among them is enough to refuse."""
    host = url.raw_host.decode("ascii")
    if options.allowed_hosts and host not in options.allowed_hosts:
        raise _RefusedError(f"{host!r} is not among image_allowed_hosts.")
    trusted = options.private_networks or bool(options.allowed_hosts)
    literal = parse_ip(host)
    if not trusted and literal is None and (why := private_name_reason(host)):
        raise _RefusedError(f"{host} is {why}. {_ALLOW}")
    found = [host] if literal else await resolve(host, url.port or {"http": 80, "https": 443}[url.scheme])
    if not found:
        raise _RefusedError("its host is not known.")
    for text in found:
        address = parse_ip(text)
        if address is None:
            raise _RefusedError(f"{host} resolves to {text!r}, which is no address.")
        if not trusted and (why := non_public_reason(address)):
            resolved = "" if literal else f"{host} resolves to "
            raise _RefusedError(f"{resolved}{address}, which is {why}. {_ALLOW}")
    return found


async def _resolve(host: str, port: int) -> list[str]:
    try:
        answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _RefusedError(f"its host can't be looked up: {error}.") from error
    return [str(answer[4][0]) for answer in answers]


async def _get(url: httpx.URL, address: str, connect_timeout: float | None, max_bytes: int) -> bytes | str:
    """Connect to an address that was checked. The host's name is only said to it, and verified by TLS."""
    request = httpx.Request(
        "GET",
        url.copy_with(host=address),
        headers={"Host": url.netloc.decode("ascii"), **_HEADERS},
        extensions={"sni_hostname": url.raw_host.decode("ascii"), "timeout": {"connect": connect_timeout}},
    )
    # Not shared: two hosts with one address must not share a connection that was verified for one of them.
    async with httpx.AsyncHTTPTransport(verify=_ssl_context()) as transport:
        response = await transport.handle_async_request(request)
        try:
            if response.status_code in _REDIRECTS and "location" in response.headers:
                return response.headers["location"]
            return await _read_body(response, max_bytes)
        finally:
            await response.aclose()


async def _read_body(response: httpx.Response, max_bytes: int) -> bytes:
    """Read as much as is allowed and no more, decompressed by ourselves: httpx would expand a whole piece first."""
    if response.status_code != _OK:
        raise _RefusedError(f"the server answers with status {response.status_code}.")
    too_large = f"it has more than {max_bytes} bytes. Scale it down, or pass its bytes yourself."
    length = response.headers.get("content-length", "")
    if re.fullmatch(r"[0-9]{1,20}", length) and int(length) > max_bytes:
        raise _RefusedError(too_large)
    packed = _is_compressed(response.headers.get("content-encoding", ""))
    expander = zlib.decompressobj(wbits=47) if packed else None  # gzip or zlib, told by the beginning
    data, received = bytearray(), 0
    async for piece in response.aiter_raw():
        received += len(piece)
        try:
            data += expander.decompress(piece, max_bytes - len(data) + 1) if expander else piece
        except zlib.error as error:
            raise _RefusedError(f"its compression can't be read: {error}.") from error
        if max(len(data), received) > max_bytes:
            raise _RefusedError(too_large)
        if expander and expander.eof:
            return bytes(data)
    if expander:
        raise _RefusedError("its compressed content is cut off.")
    return bytes(data)


def _is_compressed(encoding: str) -> bool:
    """Take what some servers send unasked, and nothing that only some installations can read."""
    if (encoding := encoding.strip().lower()) in {"", "identity"}:
        return False
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        raise _RefusedError(f"it is compressed as {encoding[:50]!r}, which was not asked for.")
    return True


@lru_cache(maxsize=1)
def _ssl_context() -> ssl.SSLContext:
    """Make it once, for it takes 16 ms. `SSL_CERT_FILE` counts as everywhere in httpx."""
    return httpx.create_ssl_context()
