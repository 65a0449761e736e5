"""What comes back reads the same whole and streamed, in LangChain's own content and in its standard blocks."""

from functools import reduce

import pytest
from langchain_core.messages import AIMessageChunk

from llama_vision.core.events import Finished, Started, TextDelta, ToolCallDelta, UsageReport
from llama_vision.core.reply import Reply
from llama_vision.core.usage import Usage
from llama_vision.langchain.chat_model import ChatLlamaVision
from llama_vision.langchain.convert import ChunkConverter, to_message

assert ChatLlamaVision  # importing it registers the translator

USAGE = Usage(12, 34, cached_input_tokens=5, cost_usd=0.001, cost_is_estimate=True)
TEXT = [TextDelta("I will"), TextDelta(" look.")]
CALLS = [
    ToolCallDelta(0, "c1", "look", ""),
    ToolCallDelta(0, None, None, '{"place": '),
    ToolCallDelta(0, None, None, '"Zürich"}'),
    ToolCallDelta(1, "c2", "wait", "{}"),
]
EVENTS = {
    "words": [Started("m", "r-1", "q-1"), *TEXT, UsageReport(USAGE), Finished("stop")],
    "calls": [Started("m"), *CALLS, Finished("tool_calls")],
    "words and calls": [Started("m"), *TEXT, *CALLS, UsageReport(USAGE), Finished("tool_calls")],
    "nothing": [Started("m"), Finished("stop")],
}


def chunks_of(events):
    writer = ChunkConverter("deepinfra")
    return [chunk.message for event in events if (chunk := writer.to_chunk(event))]


def merged(chunks):
    return reduce(lambda first, second: first + second, chunks)


def without_indices(blocks):
    return [{key: value for key, value in block.items() if key != "index"} for block in blocks]


@pytest.mark.parametrize("events", EVENTS.values(), ids=EVENTS)
def test_the_chunks_add_up_to_the_whole_message(events):
    whole, streamed = to_message(Reply.from_events(events), "deepinfra"), merged(chunks_of(events))
    assert streamed.content == whole.content
    assert streamed.tool_calls == whole.tool_calls
    assert streamed.invalid_tool_calls == whole.invalid_tool_calls
    assert streamed.usage_metadata == whole.usage_metadata
    assert streamed.response_metadata == whole.response_metadata
    assert without_indices(streamed.content_blocks) == without_indices(whole.content_blocks)


def test_metadata_of_a_whole_message():
    message = to_message(Reply.from_events(EVENTS["words"]), "deepinfra")
    assert message.response_metadata == {
        "model_provider": "llama_vision",
        "provider": "deepinfra",
        "model_name": "m",
        "finish_reason": "stop",
        "id": "r-1",
        "request_id": "q-1",
        "cost_usd": 0.001,
        "cost_is_estimate": True,
    }
    assert message.usage_metadata == {
        "input_tokens": 12,
        "output_tokens": 34,
        "total_tokens": 46,
        "input_token_details": {"cache_read": 5},
    }


def test_usage_that_nobody_told_is_absent():
    assert to_message(Reply(usage=Usage(input_tokens=3)), "deepinfra").usage_metadata is None


def test_one_last_chunk_carries_usage_and_metadata():
    *others, last = chunks_of(EVENTS["words and calls"])
    assert last.chunk_position == "last"
    assert last.usage_metadata is not None
    for chunk in others:
        assert chunk.chunk_position is None
        assert chunk.usage_metadata is None
        assert chunk.response_metadata == {"model_provider": "llama_vision"}


def test_both_of_two_parallel_calls_survive_the_standard_blocks_of_a_stream():
    slices = [
        AIMessageChunk(content=chunk.content_blocks, chunk_position=chunk.chunk_position)
        for chunk in chunks_of(EVENTS["words and calls"])[:-1]
    ]
    assert [block["type"] for block in merged(slices).content] == [
        "text",
        "tool_call_chunk",
        "tool_call_chunk",
    ]
    assert [block["name"] for block in merged(slices).content[1:]] == ["look", "wait"]
    assert merged(slices).content[1]["args"] == '{"place": "Zürich"}'


def test_arguments_that_were_cut_off_are_not_a_call():
    events = [Started("m"), ToolCallDelta(0, "c1", "look", '{"place": "Zü'), Finished("length")]
    for message in (to_message(Reply.from_events(events), "deepinfra"), merged(chunks_of(events))):
        assert message.tool_calls == []
        assert message.invalid_tool_calls[0]["args"].startswith('{"place": "Zü')
        assert [block["type"] for block in message.content_blocks] == ["invalid_tool_call"]
