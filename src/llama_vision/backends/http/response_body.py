"""Reads response bodies within a limit: two kilobytes that are compressed twice become two gigabytes."""

import contextlib
from collections.abc import AsyncIterator, Iterator

import httpx
from typing_extensions import override

from llama_vision.backends.http.cancellation import Closing
from llama_vision.core.errors import MalformedReplyError
from llama_vision.dialects.dialect import MAX_PAYLOAD_BYTES

_MAX_ERROR_BYTES = 2**20
"""What follows in the body of an error is left out: the status and the beginning say what is wrong."""

_PIECE_BYTES = {"gzip": 16_384, "deflate": 16_384, "zstd": 512, "br": 8}
"""How much is decompressed at once, so that it becomes some 16 MB at most: deflate expands up to 1,032 times, zstd 32,768
times (a block of 128 kB of one byte has 4), and brotli a few bytes to 16 MB."""


class _Pieces(httpx.SyncByteStream):
    """A stream in pieces of limited size."""

    def __init__(self, stream: httpx.SyncByteStream, size: int) -> None:
        self._stream = stream
        self._size = size

    @override
    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            for start in range(0, len(chunk), self._size):
                yield chunk[start : start + self._size]

    @override
    def close(self) -> None:
        self._stream.close()


class _AsyncPieces(httpx.AsyncByteStream):
    """The same; not an async generator, see `AsyncClientLease`."""

    def __init__(self, stream: httpx.AsyncByteStream, size: int) -> None:
        self._stream = stream
        self._size = size
        self._chunk = b""
        self._position = 0

    @override
    def __aiter__(self) -> AsyncIterator[bytes]:
        self._chunks = aiter(self._stream)
        return self

    async def __anext__(self) -> bytes:
        while self._position >= len(self._chunk):
            self._chunk, self._position = await anext(self._chunks), 0
        self._position += self._size
        return self._chunk[self._position - self._size : self._position]

    @override
    async def aclose(self) -> None:
        await self._stream.aclose()


class _Body:
    """What has been read of a body."""

    def __init__(self, response: httpx.Response) -> None:
        self._is_error = not response.is_success
        self._chunks: list[bytes] = []
        self._size = 0

    def add(self, chunk: bytes) -> bool:
        """Add the next bytes, and return whether more are to be read."""
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._is_error:
            return self._size < _MAX_ERROR_BYTES
        if self._size > MAX_PAYLOAD_BYTES:
            raise MalformedReplyError(
                f"The reply has more than {MAX_PAYLOAD_BYTES >> 20} MB, and was given up. "
                "Ask for fewer tokens or logprobs, or for a stream."
            )
        return True

    def content(self) -> bytes:
        return b"".join(self._chunks)[: _MAX_ERROR_BYTES if self._is_error else None]

    def readable_errors(self) -> contextlib.AbstractContextManager[None]:
        """An error whose body can't be decompressed is still an error of its status."""
        return (
            contextlib.suppress(httpx.DecodingError, MalformedReplyError)
            if self._is_error
            else contextlib.nullcontext()
        )


def limit_decompression(response: httpx.Response) -> httpx.Response:
    """Limit what a response, whose body has not been read, becomes at once.

    Raises:
        MalformedReplyError: It is compressed more than once.
    """
    codings = [name.strip().lower() for name in response.headers.get("content-encoding", "").split(",")]
    codings = [name for name in codings if name not in ("", "identity")]
    if len(codings) > 1:
        raise MalformedReplyError(f"The answer is compressed more than once: {', '.join(codings)[:100]}.")
    if size := _PIECE_BYTES.get("".join(codings)):
        if isinstance(response.stream, httpx.AsyncByteStream):
            response.stream = _AsyncPieces(response.stream, size)
        else:
            response.stream = _Pieces(response.stream, size)
    return response


def read_body(response: httpx.Response) -> bytes:
    """Read and close a response. Of an error that is longer than the limit its beginning is returned.

    Raises:
        MalformedReplyError: A reply is longer than the limit, or is compressed more than once.
        httpx.RequestError: The connection failed, or what is compressed is broken.
    """
    body = _Body(response)
    with contextlib.closing(response), body.readable_errors():
        for chunk in limit_decompression(response).iter_bytes():
            if not body.add(chunk):
                break
    return body.content()


async def aread_body(response: httpx.Response) -> bytes:
    """As `read_body`."""
    body = _Body(response)
    async with Closing(response):
        with body.readable_errors():
            async for chunk in limit_decompression(response).aiter_bytes():
                if not body.add(chunk):
                    break
    return body.content()
