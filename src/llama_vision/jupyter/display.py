"""`show`: displays a reply while it is generated."""

import inspect
import time
from collections.abc import AsyncIterable, Awaitable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, cast, overload

from llama_vision.core.formatting import html_text, sanitize
from llama_vision.jupyter.accumulate import ReplyAccumulator, unwrap_stream
from llama_vision.jupyter.displayed_reply import DisplayedReply
from llama_vision.jupyter.notebook import ipython_display, is_notebook

_REDRAW_S = 0.05
"""Minimum time between updates of a notebook, each of which sends the whole text."""


@overload
def show(  # pyright: ignore[reportOverlappingOverload] - everything is an object, and the first that fits counts
    answer: AsyncIterable[Any] | Awaitable[Any], *, notebook: bool | None = None
) -> Coroutine[Any, Any, DisplayedReply]: ...
@overload
def show(answer: object, *, notebook: bool | None = None) -> DisplayedReply: ...
def show(
    answer: object, *, notebook: bool | None = None
) -> DisplayedReply | Coroutine[Any, Any, DisplayedReply]:
    """Display a reply while it is generated, then its tokens, cost and seconds.

        show(model.stream(messages))                        # LangChain
        await show(model.astream(messages))
        show(llm.stream_chat(messages))                     # LlamaIndex
        await show(llm.astream_complete("Hi"))
        show(model.invoke(messages))                        # whole

    In a notebook the text grows in place, below the cell; elsewhere it is printed as it arrives. It is escaped, and never
    rendered as HTML, Markdown or formulas; at most 20,000 characters are displayed. Each tool call gets a line. When a stream
    fails, its text so far stays, and its error is raised.

    Args:
        answer: A stream or a complete reply: messages and chunks of LangChain, also those of an agent's
            `stream(..., stream_mode="messages")`; responses of LlamaIndex's models and engines, with thumbnails of
            their sources; what LangChain's retrieval chains give; strings; our events and replies. An asynchronous stream, or an awaitable of one, gives a coroutine.
        notebook: Whether this is a notebook; None detects it.

    Returns:
        The reply: `.text`, `.reply`, `.seconds`. For an asynchronous one, a coroutine of it, to be awaited.

    Raises:
        MissingDependencyError: `notebook` is True, and IPython is not installed.
        TypeError: `answer` is none of these.
    """
    response, answer = answer, unwrap_stream(answer)
    if isinstance(answer, AsyncIterable) or inspect.isawaitable(answer):
        return _show_async(cast("AsyncIterable[Any] | Awaitable[Any]", answer), response, notebook)
    if isinstance(answer, Iterator):
        return _show_stream(cast("Iterator[Any]", answer), response, notebook)
    return _show_whole(answer, notebook)


def _show_whole(answer: object, notebook: bool | None) -> DisplayedReply:
    accumulator = ReplyAccumulator()
    accumulator.add(answer)
    displayed = DisplayedReply(accumulator.reply, sources=accumulator.sources)
    _create_renderer(notebook).finish(displayed)
    return displayed


def _show_stream(stream: Iterator[Any], response: object, notebook: bool | None) -> DisplayedReply:
    with _LiveDisplay(notebook) as display:
        try:
            for item in stream:
                display.add(item)
            display.add_sources(response)
        finally:
            if (close := getattr(stream, "close", None)) is not None:
                close()
    return display.displayed()


async def _show_async(
    answer: AsyncIterable[Any] | Awaitable[Any], response: object, notebook: bool | None
) -> DisplayedReply:
    with _LiveDisplay(notebook) as display:
        if not isinstance(answer, AsyncIterable):
            response = await answer
            answer = unwrap_stream(response)
        if isinstance(answer, AsyncIterable):
            stream = aiter(answer)
            try:
                async for item in stream:
                    display.add(item)
                display.add_sources(response)
            finally:
                if (close := getattr(stream, "aclose", None)) is not None:
                    await close()
        else:
            display.add(answer)
    return display.displayed()


class _LiveDisplay:
    """Accumulates one stream and renders it; the end is rendered however the stream ends."""

    def __init__(self, notebook: bool | None) -> None:
        self._renderer = _create_renderer(notebook)
        self._accumulator = ReplyAccumulator()
        self._error_name = ""
        self._start = self._last = time.monotonic()
        self._time_to_first_token: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self._error_name = "" if kind is None else kind.__name__
        self._last = time.monotonic()
        self._renderer.finish(self.displayed())

    def add(self, item: object) -> None:
        self._accumulator.add(item)
        self._last = time.monotonic()
        displayed = self.displayed()
        if displayed.full_text:
            self._time_to_first_token = self._time_to_first_token or self._last - self._start
            self._renderer.update(displayed)

    def add_sources(self, response: object) -> None:
        """Add what a response has beside its stream, now that this has ended."""
        self._accumulator.add_sources(response)

    def displayed(self) -> DisplayedReply:
        return DisplayedReply(
            self._accumulator.reply,
            self._last - self._start,
            self._time_to_first_token,
            self._error_name,
            self._accumulator.previous_turns,
            self._accumulator.sources,
        )


class _NotebookRenderer:
    """Updates one display below the cell. It needs no widgets, and the notebook keeps the last update."""

    def __init__(self) -> None:
        self._ipython = ipython_display()
        self._handle: Any = None
        self._drawn_at = 0.0

    def update(self, displayed: DisplayedReply) -> None:
        if time.monotonic() - self._drawn_at >= _REDRAW_S:
            self._draw(html_text(displayed.full_text), sanitize(displayed.full_text))
            self._drawn_at = time.monotonic()

    def finish(self, displayed: DisplayedReply) -> None:
        self._draw(displayed._repr_html_(), str(displayed))  # pyright: ignore[reportPrivateUsage] - IPython's name for it

    def _draw(self, html: str, text: str) -> None:
        content = {"text/html": html, "text/plain": text}
        if self._handle is None:
            self._handle = self._ipython.display(content, raw=True, display_id=True)
        else:  # in place: clearing the output would make the page jump
            self._handle.update(content, raw=True)


class _TerminalRenderer:
    """Prints text as it comes, and tool calls once they are complete."""

    def __init__(self) -> None:
        self._printed = ""

    def update(self, displayed: DisplayedReply) -> None:
        self._print(displayed.previous_turns + displayed.reply.text)

    def finish(self, displayed: DisplayedReply) -> None:
        self._print(displayed.full_text)
        print("\n" * bool(displayed.full_text) + displayed.notes, flush=True)

    def _print(self, text: str) -> None:
        prefix = self._printed if text.startswith(self._printed) else ""
        if prefix != self._printed:  # text was retracted: a terminal can only restart on a new line
            print()
        new = text[len(prefix) :]
        print(sanitize(new, len(new)), end="", flush=True)
        self._printed = text


def _create_renderer(notebook: bool | None) -> _NotebookRenderer | _TerminalRenderer:
    return _NotebookRenderer() if is_notebook(notebook) else _TerminalRenderer()
