"""What goes wrong elsewhere in streams of LangChain's, in every form of their content: each was seen in another package."""

import json

import pytest
from langchain_tests.utils.stream_lifecycle import assert_valid_event_stream

from tests.emulator import completion, event_stream
from tests.langchain.output_styles import (
    added_up,
    every_streamed_style,
    every_style,
    form_of,
    message,
    pieces,
)
from tests.langchain.weather import Weather, model_at

pytestmark = pytest.mark.filterwarnings("ignore:.*beta")  # LangChain says so of its own third version

MODEL = "meta-llama/Llama-3.2-11B-Vision-Instruct"
PARIS, ROME = ({"city": city, "days": 3} for city in ("Paris", "Rome"))
CALLS = [("Weather", PARIS), ("Weather", ROME)]
REPLIES = {
    "words": completion("Hello, how are you today?"),
    "a call": completion(calls=CALLS[:1]),
    "words and calls": completion("Let me look.", calls=CALLS),
}
every_reply = pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
BLOCKS = {
    "words": ["text"],
    "a call": ["tool_call"],
    "words and calls": ["text", "tool_call", "tool_call"],
}


def asked(emulator, style, reply, **options):
    emulator.script(reply)
    return model_at(emulator, **form_of(style), **options).bind_tools([Weather])


def said(answer):
    """Words and calls of a message, whatever the form of its content."""
    return answer.text, [(call["name"], call["args"]) for call in answer.tool_calls]


# The second: nobody writes events of the third version, so that chunks have to be such that LangChain makes good ones.


@every_reply
@pytest.mark.parametrize("way", ["stream_events", "astream_events"])
def test_the_events_of_the_third_version_are_whole(emulator, way, reply):
    style = ("v3", way)
    events = pieces(asked(emulator, style, reply), style)
    assert_valid_event_stream(events)
    deltas = [event["delta"] for event in events if event["event"] == "content-block-delta"]
    texts = [delta["text"] for delta in deltas if delta["type"] == "text-delta"]
    arguments = [delta["args"] for delta in deltas if delta["type"] == "tool-call-delta"]
    told = reply["choices"][0]["message"]
    calls = told.get("tool_calls", ())
    assert "".join(texts) == (told["content"] or "")
    assert "".join(arguments) == "".join(call["function"]["arguments"] for call in calls)
    assert len(texts) > 3 or len(arguments) > 3


@every_style
@pytest.mark.parametrize("name", REPLIES)
def test_every_style_says_the_same(emulator, style, name):
    answer = message(asked(emulator, style, REPLIES[name]), style)
    assert said(answer) == said(model_at_once(emulator, REPLIES[name]))
    assert [block["type"] for block in answer.content_blocks] == BLOCKS[name]


def model_at_once(emulator, reply):
    emulator.script(reply)
    return model_at(emulator).bind_tools([Weather]).invoke("Hi")


# The third: a chunk with words and a piece of a call was read as a call without arguments.


@every_reply
@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("way", ["stream", "astream"])
def test_no_beginning_of_a_stream_is_read_as_a_finished_call(emulator, version, way, reply):
    style = (version, way)
    chunks = pieces(asked(emulator, style, reply), style)
    for end in range(1, len(chunks)):
        blocks = added_up(chunks[:end]).content_blocks
        assert "tool_call" not in [block["type"] for block in blocks]
    assert len(chunks) > 4


@every_style
def test_words_and_the_beginning_of_a_call_in_one_piece(emulator, style):
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "Weather", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": json.dumps(PARIS)}}
    deltas = [{"content": "Let me look.", "tool_calls": [call]}, {"tool_calls": [more]}]
    wire = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    streamed = event_stream(*wire, last, "[DONE]")
    answer = message(
        asked(emulator, style, streamed, **({"streaming": True} if "invoke" in style[1] else {})), style
    )
    assert said(answer) == ("Let me look.", [("Weather", PARIS)])
    assert [block["type"] for block in answer.content_blocks] == ["text", "tool_call"]


# The fourth: after words, the first of two calls was lost in content of the first version.


@every_style
def test_both_of_two_calls_after_words_arrive(emulator, style):
    answer = message(asked(emulator, style, REPLIES["words and calls"]), style)
    assert said(answer) == ("Let me look.", CALLS)
    assert [block["args"] for block in answer.content_blocks[1:]] == [PARIS, ROME]
    assert [block["id"] for block in answer.content_blocks[1:]] == ["call_00000000", "call_00000001"]
    if style[0] != "v0":
        assert [block["type"] for block in answer.content] == ["text", "tool_call", "tool_call"]


# The sixth: at addresses of one's own, usage was not asked for in streams.


@every_streamed_style
def test_usage_is_asked_for_at_any_address(emulator_of, style):
    emulator = emulator_of("openai-compatible")
    counts = {"prompt_tokens": 20, "completion_tokens": 7, "total_tokens": 27}
    emulator.script(completion("Hello!", usage=counts))
    answer = message(model_at(emulator, "openai-compatible", **form_of(style)), style)
    assert emulator.requests[0].body["stream_options"] == {"include_usage": True}
    assert answer.usage_metadata == {"input_tokens": 20, "output_tokens": 7, "total_tokens": 27}


@every_streamed_style
def test_usage_can_be_declined(emulator, style):
    answer = message(model_at(emulator, stream_usage=False, **form_of(style)), style)
    assert "stream_options" not in emulator.requests[0].body
    assert answer.text == "Hello! How can I help you today?"


# The seventh: strings of the metadata of chunks were put one behind the other, and numbers added up.


@every_style
@every_reply
def test_metadata_comes_once(emulator, style, reply):
    answer = message(asked(emulator, style, reply), style)
    of_langchain = ("output_version", "token_usage")  # the latter from `llm_output`, which streams don't have
    assert {name: value for name, value in answer.response_metadata.items() if name not in of_langchain} == {
        "model_provider": "llama_vision",
        "provider": "deepinfra",
        "model_name": MODEL,
        "finish_reason": reply["choices"][0]["finish_reason"],
        "id": reply["id"],
        "cost_usd": reply["usage"]["estimated_cost"],
        "cost_is_estimate": False,
    }
    usage = reply["usage"]
    assert answer.usage_metadata == {
        "input_tokens": usage["prompt_tokens"],
        "output_tokens": usage["completion_tokens"],
        "total_tokens": usage["total_tokens"],
    }
