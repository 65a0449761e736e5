"""Every way to get a message out of a model, in both forms of its content and as events of the third version."""

import asyncio
from functools import reduce

import pytest

WAYS = ("invoke", "ainvoke", "stream", "astream")
STYLES = [
    *((version, way) for version in ("v0", "v1") for way in WAYS),
    ("v3", "stream_events"),
    ("v3", "astream_events"),
]
STREAMED = [style for style in STYLES if not style[1].endswith("invoke")]


def _parametrized(styles):
    return pytest.mark.parametrize("style", styles, ids=map("-".join, styles))


every_style = _parametrized(STYLES)
every_streamed_style = _parametrized(STREAMED)


def form_of(style):
    """The option of the model that a style needs; events of the third version are in a form of their own."""
    version, _ = style
    return {} if version == "v3" else {"output_version": version}


def added_up(chunks):
    return reduce(lambda first, second: first + second, chunks)


def pieces(runnable, style, question="Hi", **call):
    """All that comes of a stream: chunks, or events."""

    async def collected():
        return [chunk async for chunk in runnable.astream(question, **call)]

    async def collected_events():
        return [event async for event in await runnable.astream_events(question, version="v3", **call)]

    match style[1]:
        case "stream":
            return list(runnable.stream(question, **call))
        case "astream":
            return asyncio.run(collected())
        case "stream_events":
            return list(runnable.stream_events(question, version="v3", **call))
        case _:
            return asyncio.run(collected_events())


def message(runnable, style, question="Hi", **call):
    """The whole message; of a stream all pieces added up."""

    async def output():
        return await (await runnable.astream_events(question, version="v3", **call)).output

    match style[1]:
        case "invoke":
            return runnable.invoke(question, **call)
        case "ainvoke":
            return asyncio.run(runnable.ainvoke(question, **call))
        case "stream_events":
            return runnable.stream_events(question, version="v3", **call).output
        case "astream_events":
            return asyncio.run(output())
        case _:
            return added_up(pieces(runnable, style, question, **call))
