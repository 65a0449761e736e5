"""A tool call whose arguments can't be read is never one that runs, however it is asked for."""

import asyncio
import json
from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage, ToolMessage

from llama_vision.core.events import Finished, Started, TextDelta, ToolCallDelta
from llama_vision.core.messages import ToolCall
from llama_vision.core.reply import Reply
from llama_vision.langchain.convert import ChunkConverter, to_message
from llama_vision.langchain.truncated_calls import invalidating_suffix
from tests.emulator import completion
from tests.langchain.weather import Weather, model_at

UNREADABLE = {
    "in a string": '{"a": "lo',
    "in a string, at an escape": '{"a": "lo\\',
    "in a string, after an escaped backslash": '{"a": "lo\\\\',
    "in a string, after an escaped quote": '{"a": "lo\\"',
    "in a string, after brackets": '{"a": "}]',
    "after a string": '{"a": "lo"',
    "after a key": '{"a"',
    "in a number": '{"a": 12',
    "in a list": '{"a": [1, {"b": 2}',
    "in an object in a list": '{"a": [1, {"b": 2',
    "in a list in a list": '{"a": [[1], [2',
    "at the very beginning": "{",
    "two commas": '{"a": 1,, }',
    "more after the end": '{"a": 1} and so on',
    "two objects": '{"a": 1}{"b": 2}',
    "a wrong bracket": '{"a": [1}',
    "a list": "[1, 2]",
    "a text": '"lo"',
    "a number": "3",
    "words": "the place is Rome",
    "words in Python": "{'a': 1}",
}
READABLE = ["", " ", "\n", "{}", '{"a": "lo"}', '{"a": [1, {"b": "}"}]}\n', '{"a": "two\nlines"}']
every_unreadable = pytest.mark.parametrize("arguments", UNREADABLE.values(), ids=UNREADABLE)


def chunks_of(arguments, reason="length", size=3):
    """The chunks of a reply with two calls, of which the second has these arguments, in small pieces."""
    pieces = [arguments[start : start + size] for start in range(0, len(arguments), size)]
    events = [
        Started("m"),
        TextDelta("I look."),
        ToolCallDelta(0, "c1", "wait", '{"seconds": 1}'),
        ToolCallDelta(1, "c2", "look", ""),
        *(ToolCallDelta(1, None, None, piece) for piece in pieces),
        Finished(reason),
    ]
    writer = ChunkConverter("deepinfra")
    chunks = [chunk.message for event in events if (chunk := writer.to_chunk(event))]
    return chunks, to_message(Reply.from_events(events), "deepinfra")


def merged(chunks):
    return reduce(lambda first, second: first + second, chunks)


@every_unreadable
def test_the_sum_of_a_stream_has_it_among_invalid_calls(arguments):
    chunks, whole = chunks_of(arguments)
    total = merged(chunks)
    assert [call["name"] for call in total.tool_calls] == ["wait"]
    (call,) = total.invalid_tool_calls
    assert (call["id"], call["name"]) == ("c2", "look")
    assert call["args"].startswith(arguments)
    assert len(call["args"]) < len(arguments) + 16
    assert [block["type"] for block in total.content_blocks] == ["text", "tool_call", "invalid_tool_call"]
    assert [call["args"] for call in whole.invalid_tool_calls] == [arguments]
    assert whole.tool_calls == total.tool_calls
    assert [block["type"] for block in whole.content_blocks] == [
        block["type"] for block in total.content_blocks
    ]


@every_unreadable
def test_the_last_piece_alone_is_a_piece(arguments):
    *_, last = chunks_of(arguments)[0]
    assert last.chunk_position == "last"
    assert [block["type"] for block in last.content_blocks] == ["tool_call_chunk"]
    assert last.tool_calls == []


@pytest.mark.parametrize("arguments", READABLE, ids=repr)
def test_arguments_that_can_be_read_are_left_as_they_are(arguments):
    chunks, whole = chunks_of(arguments, reason="tool_calls")
    total = merged(chunks)
    assert total.invalid_tool_calls == []
    assert total.tool_calls == whole.tool_calls
    assert total.tool_calls[1]["args"] == ToolCall(None, "look", arguments).parsed()
    assert [block["type"] for block in total.content_blocks] == ["text", "tool_call", "tool_call"]
    if arguments.strip() or not arguments:
        assert chunks[-1].tool_call_chunks == []


@pytest.mark.parametrize("arguments", ["", " ", "\n"], ids=repr)
def test_arguments_that_were_cut_off_before_they_began_are_not_none(arguments):
    chunks, whole = chunks_of(arguments, reason="length")
    total = merged(chunks)
    assert [call["name"] for call in total.tool_calls] == ["wait"]
    assert total.tool_calls == whole.tool_calls
    (streamed,), (call,) = total.invalid_tool_calls, whole.invalid_tool_calls
    assert (streamed["id"], streamed["name"]) == (call["id"], call["name"]) == ("c2", "look")
    assert "raise max_tokens" in call["error"]


@pytest.mark.parametrize(
    ("reason", "word"), [("length", "(cut off)"), ("tool_calls", "(unreadable)"), ("stop", "(unreadable)")]
)
def test_people_are_told_why(reason, word):
    (call,) = merged(chunks_of('{"a": "lo', reason)[0]).invalid_tool_calls
    assert call["args"] == f'{{"a": "lo"] {word}'


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab"\\{}[],: \n'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab"\\{}'), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.text("ab"), JSON), st.data())
def test_no_beginning_of_any_object_becomes_a_call(value, data):
    written = json.dumps(value)
    cut = data.draw(st.integers(1, len(written)))
    total = merged(chunks_of(written[:cut])[0])
    expected = ["wait", "look"] if cut == len(written) else ["wait"]
    assert [call["name"] for call in total.tool_calls] == expected
    assert len(total.tool_calls) + len(total.invalid_tool_calls) == 2


@settings(deadline=None)
@given(st.text('{}[]",:\\ 1a\n', max_size=30))
def test_streams_and_whole_replies_agree_on_every_text(written):
    chunks, whole = chunks_of(written)
    total = merged(chunks)
    assert total.tool_calls == whole.tool_calls
    assert len(total.invalid_tool_calls) == len(whole.invalid_tool_calls)


def test_it_takes_no_longer_than_the_text_is_long():
    long = '{"a": "' + '\\"' * 500_000
    assert invalidating_suffix(long, "length") == '"] (cut off)'


# Over the wire, in every way that LangChain has to ask.

CUT = completion(
    calls=[("Weather", {"city": "Rome", "days": 1}), ("Weather", '{"city": "Par')], finish_reason="length"
)


def asked(emulator, **options):
    return model_at(emulator, **options).bind_tools([Weather])


def last_of(message):
    """Names and arguments of what would run, and what of the rest is shown."""
    return [call["args"] for call in message.tool_calls], [
        call["args"] for call in message.invalid_tool_calls
    ]


WHOLE = ([{"city": "Rome", "days": 1}], ['{"city": "Par'])
STREAMED = ([{"city": "Rome", "days": 1}], ['{"city": "Par"] (cut off)'])


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_whole_replies(emulator, version):
    emulator.script(CUT, CUT)
    model = asked(emulator, output_version=version)
    assert last_of(model.invoke("Hi")) == last_of(asyncio.run(model.ainvoke("Hi"))) == WHOLE


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_streams(emulator, version):
    emulator.script(CUT, CUT, CUT, CUT)
    model = asked(emulator, output_version=version)

    async def collected():
        return [chunk async for chunk in model.astream("Hi")]

    assert last_of(merged(model.stream("Hi"))) == last_of(merged(asyncio.run(collected()))) == STREAMED
    model = asked(emulator, output_version=version, streaming=True)
    assert last_of(model.invoke("Hi")) == last_of(asyncio.run(model.ainvoke("Hi"))) == STREAMED
    assert all(request.streamed for request in emulator.requests)


@pytest.mark.parametrize("version", ["v0", "v1"])
async def test_events(emulator, version):
    emulator.script(CUT)
    model = asked(emulator, output_version=version)
    events = [event async for event in model.astream_events("Hi", version="v2")]
    assert last_of(events[-1]["data"]["output"]) == STREAMED


@pytest.mark.filterwarnings("ignore:.*beta")  # LangChain says so of its own
@pytest.mark.parametrize("arguments", [*UNREADABLE.values()], ids=UNREADABLE)
def test_events_of_the_third_version(emulator, arguments):
    emulator.script(completion(calls=[("Weather", arguments)], finish_reason="length"))
    output = asked(emulator).stream_events("Hi", version="v3").output
    assert output.tool_calls == []
    assert [call["args"][: len(arguments)] for call in output.invalid_tool_calls] == [arguments]


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("way", ["whole", "streamed"])
def test_a_conversation_with_it_goes_on(emulator, way, version):
    """Nothing that is not JSON is sent as arguments, and what was answered to the call arrives."""
    emulator.script(CUT, completion("Rome it is."))
    model = asked(emulator, output_version=version)
    message = model.invoke("Hi") if way == "whole" else merged(model.stream("Hi"))
    answers = [ToolMessage("Write JSON.", tool_call_id=call["id"]) for call in message.invalid_tool_calls]
    history = [
        HumanMessage("Hi"),
        message,
        ToolMessage("Sunny", tool_call_id=message.tool_calls[0]["id"]),
        *answers,
    ]
    assert model.invoke(history).text == "Rome it is."
    _, said, result, told = emulator.requests[1].body["messages"]
    assert [json.loads(call["function"]["arguments"]) for call in said["tool_calls"]] == [
        {"city": "Rome", "days": 1}
    ]
    assert 'I called Weather with arguments that can\'t be read: {"city": "Par' in said["content"]
    assert (result["role"], result["content"]) == ("tool", "Sunny")
    assert (told["role"], told["content"]) == ("user", "Write JSON.")
