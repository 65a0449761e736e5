"""Downloads a URL: every resolved IP address is checked, and the connection is made to the one that was checked.

Always on an event loop: httpx's timeouts apply to each read, and only a loop can enforce a deadline for everything, DNS
queries and responses that trickle in included.

Uses an httpx transport, not a client: it has no cookies, redirects, proxies from the environment or `.netrc`, and does
not log whole URLs, which may be signed.
"""

import asyncio
import contextlib
import logging
import re
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from functools import lru_cache
from typing import Any, TypeVar

import httpx

from llama_vision.core.errors import ImageError
from llama_vision.images.fetch_policy import FetchPolicy, Resolve, redact_url
from llama_vision.images.public_addresses import (
    non_public_reason,
    normalize_host,
    parse_ip,
    private_name_reason,
)
from llama_vision.version import __version__

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TAKEN = frozenset({200, 203})  # 203: changed by a proxy on the way
_DECOMPRESSED = frozenset({"gzip", "x-gzip", "deflate"})
# https://www.iana.org/assignments/http-parameters, and names in use before that
_COMPRESSIONS = _DECOMPRESSED | {
    "br",
    "bzip2",
    "compress",
    "dcb",
    "dcz",
    "exi",
    "lzma",
    "pack200-gzip",
    "x-compress",
    "xz",
    "zstd",
}
_MAX_PORT = 65535
_HEADERS = {
    "User-Agent": f"llama-vision/{__version__}",
    "Accept": "image/*, application/pdf",
    "Accept-Encoding": "identity",  # image files are compressed already
    "Connection": "close",
}
_HOW_TO_ALLOW = (
    "If you trust whoever gave this address, allow it with image_private_networks=True, "
    "or only its host with image_allowed_hosts=[...]."
)
_JOIN_TIMEOUT_S = 0.2
_CLOSE_TIMEOUT_S = 1.0

_logger = logging.getLogger("llama_vision")

_Result = TypeVar("_Result")


class _RefusedError(Exception):
    """Why a URL or its response is refused; the caller adds the URL."""


def run_in_thread(factory: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
    """Run a coroutine in a thread with a loop of its own: the caller's thread may be running one already.

    A DNS query that hangs is left behind in the thread.

    Raises:
        ImageError: The system has no thread to spare.
    """
    result: Future[_Result] = Future()
    loop = asyncio.new_event_loop()  # here, so that nothing waits for a thread that could not make one

    async def run() -> None:
        try:
            result.set_result(await factory())
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            result.set_exception(error)

    def serve() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(run())

    thread = threading.Thread(target=serve, name="llama-vision-fetch", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        loop.close()
        raise ImageError(f"Nothing can be downloaded: {error}.") from error
    try:
        return result.result()
    finally:
        thread.join(_JOIN_TIMEOUT_S)


async def download(url: str, policy: FetchPolicy, resolve: Resolve | None = None) -> bytes:
    """Download an untrusted URL; `resolve` replaces the system's resolver.

    In a task of its own, which is cancelled once at most: a second cancellation, as of AnyIO's scopes, would interrupt
    httpcore's closing of the connection, which would stay open (see `backends.http.cancellation`).

    Raises:
        ImageError: The URL is refused, or there is no usable response.
    """
    task = asyncio.create_task(_download(url, policy, resolve or _resolve))
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        await _wait_closed(task)
        raise
    return task.result()


async def _wait_closed(task: asyncio.Task[bytes]) -> None:
    """Wait until a cancelled task has cleaned up, in spite of further cancellations."""
    deadline = time.monotonic() + _CLOSE_TIMEOUT_S
    while not task.done() and time.monotonic() < deadline:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task], timeout=_CLOSE_TIMEOUT_S)
    if task.done() and not task.cancelled():
        task.exception()  # seen: it is not reported as never retrieved


async def _download(url: str, policy: FetchPolicy, resolve: Resolve) -> bytes:
    began = time.monotonic()
    try:
        async with asyncio.timeout(policy.timeout_s) as limit:
            data = await _follow_redirects(url, policy, resolve, limit.when() or 0)
    except TimeoutError as error:
        why = f"it took longer than {policy.timeout_s:g} s. Download it yourself and pass its bytes."
        raise ImageError(f"The image at {redact_url(url)} can't be fetched: {why}") from error
    _logger.info("Downloaded %s: %d bytes in %.2f s", redact_url(url), len(data), time.monotonic() - began)
    return data


async def _follow_redirects(first: str, policy: FetchPolicy, resolve: Resolve, deadline: float) -> bytes:
    """Follow redirects by hand: each target has to be checked like the first URL."""
    url: httpx.URL | None = None
    target = first
    for hop in range(policy.max_redirects + 1):
        source = (
            f"{redact_url(target)} (to which {redact_url(first)} redirects)" if hop else redact_url(first)
        )
        try:
            url = _parse_url(target, url)
            addresses = await _resolve_checked(url, policy, resolve)
            found = await _get_from_any(url, addresses, policy.max_bytes, deadline)
        except _RefusedError as error:
            raise ImageError(f"The image at {source} can't be fetched: {error}") from error
        if isinstance(found, bytes):
            return found
        target = found
    why = f"there are more than {policy.max_redirects} redirects. Download it yourself and pass its bytes."
    raise ImageError(f"The image at {redact_url(first)} can't be fetched: {why}")


def _parse_url(target: str, previous: httpx.URL | None) -> httpx.URL:
    """Parse a URL, relative to the previous one if any, and check all but its host."""
    try:
        url = previous.join(target) if previous else httpx.URL(target)
    except (httpx.InvalidURL, ValueError):  # its text may contain a part of a password
        raise _RefusedError("it is not a valid URL.") from None
    if url.scheme not in {"http", "https"}:
        raise _RefusedError("only http and https addresses are fetched.")
    if previous and previous.scheme == "https" and url.scheme == "http":
        raise _RefusedError("it leads from https to http, where anyone on the way can change it.")
    if url.userinfo:
        raise _RefusedError(
            "it holds a user name or password. Download the image yourself and give its bytes."
        )
    if url.port is not None and not 0 < url.port <= _MAX_PORT:
        raise _RefusedError("its port is out of range.")
    try:
        return url.copy_with(host=normalize_host(url.raw_host.decode("ascii")), fragment=None)
    except (httpx.InvalidURL, ValueError) as error:
        raise _RefusedError(f"{error}.") from None


async def _get_from_any(
    url: httpx.URL, addresses: Sequence[str], max_bytes: int, deadline: float
) -> bytes | str:
    """GET from the first address that accepts a connection: the body, or the location of a redirect."""
    failure: Exception | None = None
    for index, address in enumerate(addresses):
        # One that drops all packets must leave time for the others.
        share = (deadline - asyncio.get_running_loop().time()) / (len(addresses) - index)
        try:
            return await _get(url, address, share if index + 1 < len(addresses) else None, max_bytes)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            failure = error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _RefusedError(f"the answer broke off: {error or type(error).__name__}.") from error
    raise _RefusedError(f"there is no connection: {failure or type(failure).__name__}.") from failure


async def _resolve_checked(url: httpx.URL, policy: FetchPolicy, resolve: Resolve) -> Sequence[str]:
    """Resolve a host to the IP addresses that may be connected to. One that may not is enough to refuse."""
    host = url.raw_host.decode("ascii")
    if policy.allowed_hosts and host not in policy.allowed_hosts:
        raise _RefusedError(f"{host!r} is not among image_allowed_hosts.")
    trusted = policy.private_networks or bool(policy.allowed_hosts)
    literal = parse_ip(host)
    if not trusted and literal is None and (why := private_name_reason(host)):
        raise _RefusedError(f"{host} is {why}. {_HOW_TO_ALLOW}")
    found = [host] if literal else await resolve(host, url.port or {"http": 80, "https": 443}[url.scheme])
    if not found:
        raise _RefusedError("its host is not known.")
    for text in found:
        address = parse_ip(text)
        if address is None:
            raise _RefusedError(f"{host} resolves to {text!r}, which is no address.")
        if not trusted and (why := non_public_reason(address)):
            resolved = "" if literal else f"{host} resolves to "
            raise _RefusedError(f"{resolved}{address}, which is {why}. {_HOW_TO_ALLOW}")
    return found


async def _resolve(host: str, port: int) -> list[str]:
    """Look a host up in a thread of its own: a look-up that hangs would take one of the event loop's few."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[Any]] = loop.create_future()

    def settle(answers: list[Any] | None, error: Exception | None) -> None:
        if found.done():  # given up
            return
        if error is not None:
            found.set_exception(error)
        else:
            found.set_result(answers or [])

    def look_up() -> None:
        try:
            outcome = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), None
        except Exception as error:  # noqa: BLE001 - raised where it is awaited
            outcome = None, error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, *outcome)

    try:
        threading.Thread(target=look_up, name="llama-vision-resolve", daemon=True).start()
        answers = await found
    except (OSError, RuntimeError, UnicodeError) as error:
        raise _RefusedError(f"its host can't be looked up: {error}.") from error
    return [str(answer[4][0]) for answer in answers]


async def _get(url: httpx.URL, address: str, connect_timeout: float | None, max_bytes: int) -> bytes | str:
    """GET from a checked IP address. The host's name is only sent in the Host header and by SNI, and verified by TLS."""
    request = httpx.Request(
        "GET",
        url.copy_with(host=address),
        headers={"Host": url.netloc.decode("ascii"), **_HEADERS},
        extensions={"sni_hostname": url.raw_host.decode("ascii"), "timeout": {"connect": connect_timeout}},
    )
    # Not pooled: two hosts of one address must not share a connection that was verified for one of them.
    async with httpx.AsyncHTTPTransport(verify=_ssl_context()) as transport:
        response = await transport.handle_async_request(request)
        try:
            if response.status_code in _REDIRECTS and "location" in response.headers:
                return response.headers["location"]
            return await _read_body(response, max_bytes)
        finally:
            await response.aclose()


async def _read_body(response: httpx.Response, max_bytes: int) -> bytes:
    """Read no more than is allowed. Decompressed here: httpx would decompress a whole chunk first."""
    if response.status_code not in _TAKEN:
        raise _RefusedError(f"the server answers with status {response.status_code}.")
    too_large = f"it has more than {max_bytes} bytes. Scale it down, or pass its bytes yourself."
    length = response.headers.get("content-length", "")
    if re.fullmatch(r"[0-9]{1,20}", length) and int(length) > max_bytes:
        raise _RefusedError(too_large)
    compressed = _is_compressed(response.headers.get("content-encoding", ""))
    decompressor = zlib.decompressobj(wbits=47) if compressed else None  # gzip or zlib, detected
    data, received = bytearray(), 0
    async for chunk in response.aiter_raw():
        received += len(chunk)
        try:
            data += decompressor.decompress(chunk, max_bytes - len(data) + 1) if decompressor else chunk
        except zlib.error as error:
            raise _RefusedError(f"its compression can't be read: {error}.") from error
        if max(len(data), received) > max_bytes:
            raise _RefusedError(too_large)
        if decompressor and decompressor.eof:
            return bytes(data)
    if decompressor:
        raise _RefusedError("its compressed content is cut off.")
    return bytes(data)


def _is_compressed(encoding: str) -> bool:
    """Accept what some servers send unasked, and nothing that needs optional packages.

    Names of what is no compression are ignored, such as `UTF-8`, `none` or S3's `aws-chunked`: the bytes tell what they are.
    """
    names = [name for name in map(str.strip, encoding.lower().split(",")) if name in _COMPRESSIONS]
    if len(names) > 1 or not _DECOMPRESSED.issuperset(names):
        raise _RefusedError(f"it is compressed as {encoding[:50]!r}, which was not asked for.")
    return bool(names)


@lru_cache(maxsize=1)
def _ssl_context() -> ssl.SSLContext:
    """Create the context once: that takes 16 ms. As in all of httpx, `SSL_CERT_FILE` applies."""
    try:
        return httpx.create_ssl_context()
    except OSError as error:  # ssl.SSLError is one
        raise _RefusedError(
            f"the certificates of SSL_CERT_FILE or SSL_CERT_DIR can't be read: {error}."
        ) from error
