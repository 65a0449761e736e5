"""Sends an answer step by step, and notices a client that leaves before its end."""

import asyncio
from collections.abc import Callable
from typing import Any, assert_never

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from tests.emulator.answers import HANG_UP, STALL, Answer, Wait


class Protocol(H11Protocol):
    """Lets an answer close its connection, for which ASGI has no word."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


class Playback:
    """An answer on its way: an ASGI application for one request whose body was read."""

    def __init__(
        self, answer: Answer, *, running: set[asyncio.Task[Any]], on_disconnect: Callable[[], None]
    ) -> None:
        self._answer = answer
        self._running = running
        self._on_disconnect = on_disconnect
        self._ended = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport: asyncio.Transport = scope["state"]["transport"]
        gone = asyncio.create_task(_until_gone(receive))
        playing = asyncio.create_task(self._play(transport, send))
        self._running.add(playing)
        await asyncio.wait({gone, playing}, return_when=asyncio.FIRST_COMPLETED)
        self._running.discard(playing)
        if not self._ended:
            if playing.done():  # cancelled by a reset
                transport.abort()
            else:
                self._on_disconnect()
        playing.cancel()
        await gone  # it comes with the end of the answer too
        if playing.done() and not playing.cancelled():
            playing.result()

    async def _play(self, transport: asyncio.Transport, send: Send) -> None:
        answer = self._answer
        if answer.status is not None:
            headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        for step in answer.steps:
            match step:
                case bytes():
                    await send({"type": "http.response.body", "body": step, "more_body": True})
                    await asyncio.sleep(0)  # so that a client that leaves is noticed
                case Wait():
                    await asyncio.sleep(step.seconds)
                case _ if step is STALL:
                    await asyncio.Event().wait()
                case _ if step is HANG_UP:
                    self._ended = True
                    transport.close()
                    return
                case _:
                    assert_never(step)
        self._ended = True
        await send({"type": "http.response.body"})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
