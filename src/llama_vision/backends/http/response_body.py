"""Reads response bodies within a limit: two kilobytes that are compressed twice become two gigabytes."""

from collections.abc import AsyncIterator, Iterator

import httpx
from typing_extensions import override

from llama_vision.core.errors import MalformedReplyError

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


def limit_decompression(response: httpx.Response) -> httpx.Response:
    """Limit what a response, whose body has not been read, becomes at once.

    Raises:
        MalformedReplyError: It is compressed more than once.
    """
    if not any(name.lower() == b"content-encoding" for name, _ in response.headers.raw):
        return response  # at a fourth of the cost of a look-up
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
