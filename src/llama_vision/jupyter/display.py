"""`show`: an answer that appears as it comes."""

import inspect
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, cast, overload

from llama_vision.jupyter.accumulate import ReplyAccumulator, unwrap_stream
from llama_vision.jupyter.displayed_reply import DisplayedReply
from llama_vision.jupyter.renderers import Renderer, create_renderer


@overload
def show(  # pyright: ignore[reportOverlappingOverload] - everything is an object, and the first that fits counts
    answer: AsyncIterable[Any] | Awaitable[Any], *, notebook: bool | None = None
) -> Coroutine[Any, Any, DisplayedReply]: ...
@overload
def show(answer: object, *, notebook: bool | None = None) -> DisplayedReply: ...
def show(
    answer: object, *, notebook: bool | None = None
) -> DisplayedReply | Coroutine[Any, Any, DisplayedReply]:
    """Show an answer as it comes, then its tokens, its cost and the seconds it took.

        show(model.stream(messages))                        # LangChain
        await show(model.astream(messages))
        show(llm.stream_chat(messages))                     # LlamaIndex
        await show(llm.astream_complete("Hi"))
        show(model.invoke(messages))                        # whole

    In a notebook the words grow in place, below the cell; elsewhere they are printed as they come. What the model wrote
    is shown as it stands, and never taken for HTML, Markdown or formulas; of more than 20,000 characters the beginning is
    shown. Tools that it asks for get a line each. A stream that breaks off stays as far as it came, and its error is raised.

    Args:
        answer: A stream, or a whole answer: messages and chunks of LangChain, also those of an agent's
            `stream(..., stream_mode="messages")`; responses of LlamaIndex's models and engines; texts; events and replies of
            ours. An asynchronous stream, or what has to be awaited to get one, gives a coroutine.
        notebook: Whether this is a notebook. By default it is found out.

    Returns:
        The answer: `.text`, `.reply`, `.seconds`. For an asynchronous one, a coroutine of it, to be awaited.

    Raises:
        MissingDependencyError: `notebook` is True, and IPython is not installed.
        TypeError: It is nothing that can be shown as an answer.

    """
    answer = unwrap_stream(answer)
    if isinstance(answer, AsyncIterable) or inspect.isawaitable(answer):
        return _show_async(cast("AsyncIterable[Any] | Awaitable[Any]", answer), notebook)
    if isinstance(answer, Iterator):
        return _show_stream(cast("Iterator[Any]", answer), notebook)
    return _show_whole(answer, notebook)


def _show_whole(answer: object, notebook: bool | None) -> DisplayedReply:
    growing = ReplyAccumulator()
    growing.add(answer)
    shown = DisplayedReply(growing.reply)
    create_renderer(notebook).finish(shown)
    return shown


def _show_stream(stream: Iterator[Any], notebook: bool | None) -> DisplayedReply:
    with _LiveDisplay(create_renderer(notebook)) as showing:
        try:
            for item in stream:
                showing.add(item)
        finally:
            if (close := getattr(stream, "close", None)) is not None:
                close()
    return showing.shown()


async def _show_async(answer: AsyncIterable[Any] | Awaitable[Any], notebook: bool | None) -> DisplayedReply:
    with _LiveDisplay(create_renderer(notebook)) as showing:
        if not isinstance(answer, AsyncIterable):
            answer = unwrap_stream(await answer)
        if isinstance(answer, AsyncIterable):
            await _consume(answer.__aiter__(), showing)
        else:
            showing.add(answer)
    return showing.shown()


async def _consume(stream: AsyncIterator[Any], showing: "_LiveDisplay") -> None:
    try:
        async for item in stream:
            showing.add(item)
    finally:
        if (close := getattr(stream, "aclose", None)) is not None:
            await close()


class _LiveDisplay:
    """One answer on its way to a screen, which gets to see its end however it ends."""

    def __init__(self, screen: Renderer) -> None:
        self._screen = screen
        self._growing = ReplyAccumulator()
        self._broken_off = ""

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._first: float | None = None
        self._ended = self._began
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self._broken_off = "" if kind is None else kind.__name__
        self._ended = time.monotonic()
        self._screen.finish(self.shown())

    def add(self, item: object) -> None:
        self._growing.add(item)
        self._ended = time.monotonic()
        shown = self.shown()
        if shown.full_text:
            self._first = self._first or self._ended - self._began
            self._screen.update(shown)

    def shown(self) -> DisplayedReply:
        return DisplayedReply(
            self._growing.reply,
            self._ended - self._began,
            self._first,
            self._broken_off,
            self._growing.previous_turns,
        )
