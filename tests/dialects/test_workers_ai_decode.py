"""Cloudflare's native replies in every shape they were seen in, whole and streamed."""

import pytest

from llama_vision.core.errors import MalformedReplyError, TruncatedStreamError
from llama_vision.core.events import Finished, Started, TextDelta, UsageReport
from llama_vision.core.reply import Reply
from llama_vision.core.usage import Usage
from tests.dialects.replies import DONE, enveloped, native_events_of, native_reply_to

USAGE = {"prompt_tokens": 41, "completion_tokens": 12, "total_tokens": 53}
CALL = {"name": "weather", "arguments": {"city": "Zürich"}}
PARIS = '{"city": "Paris"}'


def calls_of(*payloads):
    return [(call.name, call.parsed()) for call in native_reply_to(*payloads).tool_calls]


def test_a_whole_reply_gives_the_events_of_a_reply_in_order():
    body = enveloped({"response": "Hello!", "tool_calls": [], "usage": USAGE})
    assert native_events_of(body, headers={"cf-ray": "ray-1"}) == [
        Started("asked", None, "ray-1"),
        TextDelta("Hello!"),
        UsageReport(Usage(41, 12)),
        Finished("stop"),
    ]


def test_a_stream_of_token_counts_alone_is_an_empty_reply():
    assert native_events_of({"usage": USAGE}, DONE) == [
        Started("asked"),
        UsageReport(Usage(41, 12)),
        Finished("stop"),
    ]


def test_a_stream_gives_its_words_as_they_come():
    stream = [
        {"response": "Hel", "tool_calls": [], "p": "abdefghijklm"},
        {"response": "lo", "p": "ab"},
        {"response": "", "usage": USAGE | {"prompt_tokens_details": {"cached_tokens": 0}}},
        DONE,
    ]
    assert native_events_of(*stream) == [
        Started("asked"),
        TextDelta("Hel"),
        TextDelta("lo"),
        UsageReport(Usage(41, 12, 0)),
        Finished("stop"),
    ]


@pytest.mark.parametrize(
    ("response", "text"),
    [
        ("Hi", "Hi"),
        (" Hi", " Hi"),
        ("", ""),
        (42, "42"),
        (4.5, "4.5"),
        (0, "0"),
        (True, "true"),
        ({"name": "Zürich"}, '{"name": "Zürich"}'),
        (["a", 1], '["a", 1]'),
        ({}, "{}"),
        ("A cat.<|eot_id|>", "A cat."),
    ],
    ids=repr,
)
def test_words_numbers_objects_and_arrays_are_text(response, text):
    # JSON that the model wrote comes parsed.
    assert native_reply_to(enveloped({"response": response})).text == text
    assert native_reply_to({"response": response, "p": "ab"}, DONE).text == text


def test_padding_and_null_in_a_stream_say_nothing():
    assert native_reply_to({"response": None, "p": "abc"}, {"response": "Hi"}, {"p": "ab"}, DONE).text == "Hi"


@pytest.mark.parametrize(
    "result", [{}, {"response": None}, {"response": None, "tool_calls": []}, {"tool_calls": None}], ids=repr
)
def test_a_whole_reply_of_nothing_is_no_reply(result):
    with pytest.raises(MalformedReplyError, match="neither text nor tool calls"):
        native_reply_to(enveloped(result))


@pytest.mark.parametrize(
    "call",
    [
        CALL,
        {"name": "weather", "arguments": '{"city": "Zürich"}'},
        {"function": CALL, "type": "function"},
        {"id": "chatcmpl-tool-1", "type": "function", "function": CALL | {"arguments": '{"city": "Zürich"}'}},
    ],
    ids=["flat, object", "flat, text", "nested, object", "nested, text"],
)
@pytest.mark.parametrize("wrap", [lambda result: [enveloped(result)], lambda result: [result, DONE]])
def test_a_tool_call_in_any_shape(wrap, call):
    reply = native_reply_to(*wrap({"response": None, "tool_calls": [call]}))
    assert [(made.name, made.parsed()) for made in reply.tool_calls] == [("weather", {"city": "Zürich"})]
    assert (reply.text, reply.finish_reason) == ("", "tool_calls")
    assert reply.tool_calls[0].id == call.get("id", reply.tool_calls[0].id)


@pytest.mark.parametrize("arguments", ["", None, "{}", {}])
def test_a_call_without_arguments_means_the_empty_object(arguments):
    (call,) = native_reply_to(enveloped({"tool_calls": [{"name": "now", "arguments": arguments}]})).tool_calls
    assert call.arguments == "{}"


@pytest.mark.parametrize("wrap", [lambda result: [enveloped(result)], lambda result: [result, DONE]])
def test_calls_without_ids_are_given_different_ones(wrap):
    calls = native_reply_to(*wrap({"tool_calls": [CALL, CALL]})).tool_calls
    assert [call.parsed() for call in calls] == [{"city": "Zürich"}] * 2
    assert calls[0].id != calls[1].id
    assert all(call.id.startswith("call_") for call in calls)


SPLIT = [
    {"tool_calls": [{"id": "a", "type": "function", "index": 0, "function": {"name": "weather"}}], "p": "x"},
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"city"'}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": ': "Paris"}'}}]},
]
SENTINEL = {
    "tool_calls": [{"id": None, "type": None, "index": 0, "function": {"name": None, "arguments": ""}}]
}
LAST = {"response": "", "tool_calls": [], "usage": USAGE}


@pytest.mark.parametrize("end", [[LAST], [SENTINEL], [SENTINEL, LAST], []], ids=len)
def test_a_call_in_pieces_is_put_together_and_the_sentinel_passed_over(end):
    reply = native_reply_to(*SPLIT, *end, DONE)
    assert [(call.id, call.name, call.arguments) for call in reply.tool_calls] == [("a", "weather", PARIS)]
    assert reply.finish_reason == "tool_calls"


def test_two_calls_in_pieces_are_kept_apart():
    second = {"tool_calls": [{"id": "b", "index": 1, "function": {"name": "now", "arguments": "{}"}}]}
    assert calls_of(*SPLIT, second, SENTINEL, DONE) == [("weather", {"city": "Paris"}), ("now", {})]


def test_two_flat_calls_in_one_chunk_without_an_index_are_two():
    now = {"name": "now", "arguments": {}}
    assert calls_of({"tool_calls": [CALL, now]}, DONE) == [("weather", {"city": "Zürich"}), ("now", {})]


@pytest.mark.parametrize("stray", ["weather", 7, ["weather"], {"arguments": {"city": "Paris"}}], ids=repr)
@pytest.mark.parametrize("wrap", [enveloped, dict])
def test_what_has_no_name_among_the_calls_is_an_error(wrap, stray):
    with pytest.raises(MalformedReplyError, match="without naming it"):
        native_reply_to(wrap({"response": "Hm", "tool_calls": [stray]}), DONE)


@pytest.mark.parametrize("stray", [None, [], {}, "", SENTINEL["tool_calls"][0]], ids=repr)
def test_what_says_nothing_among_the_calls_is_passed_over(stray):
    assert native_reply_to(enveloped({"response": "Hm", "tool_calls": [stray]})).tool_calls == ()


def test_a_result_may_be_a_chat_completion():
    message = {"role": "assistant", "content": "Hi", "tool_calls": []}
    result = {
        "id": "id-1",
        "model": "@cf/meta/other",
        "choices": [{"index": 0, "message": message, "finish_reason": "length"}],
        "usage": USAGE,
    }
    assert native_reply_to(enveloped(result)) == Reply(
        "Hi", usage=Usage(41, 12), finish_reason="length", model="@cf/meta/other", id="id-1"
    )


def test_a_chat_completion_of_nothing_is_no_reply():
    # What users got for an image in the messages.
    with pytest.raises(MalformedReplyError, match="may not take images in this way"):
        native_reply_to(enveloped({"choices": [{"message": {"content": None}}]}))


def test_a_stream_may_be_one_of_chat_completions():
    first = {"id": "id-1", "choices": [{"index": 0, "delta": {"content": "Hi"}}]}
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    assert native_reply_to(first, last, last, DONE) == Reply(
        "Hi", finish_reason="stop", model="asked", id="id-1"
    )


@pytest.mark.parametrize("end", [[], [DONE]])
def test_a_stream_may_be_answered_with_a_whole_reply(end):
    assert native_reply_to(enveloped({"response": "Hi"}), *end) == Reply(
        "Hi", finish_reason="stop", model="asked"
    )


@pytest.mark.parametrize(
    "payloads", [[], [{"response": "Hi"}], [*SPLIT], [LAST], [{}], [{"result": None, "success": True}]], ids=repr
)  # fmt: skip
def test_a_stream_without_an_end_mark_is_cut(payloads):
    with pytest.raises(TruncatedStreamError):
        native_events_of(*payloads)


@pytest.mark.parametrize(
    ("tokens", "limit", "reason"), [(12, 12, "length"), (12, 13, "stop"), (12, None, "stop"), (None, 12, "stop")]
)  # fmt: skip
def test_a_reply_as_long_as_it_may_be_was_cut(tokens, limit, reason):
    usage = {"prompt_tokens": 41, "completion_tokens": tokens}
    assert (
        native_reply_to(enveloped({"response": "Hi", "usage": usage}), max_tokens=limit).finish_reason
        == reason
    )
    chunks = [{"response": "Hi"}, {"response": "", "usage": usage}, DONE]
    assert native_reply_to(*chunks, max_tokens=limit).finish_reason == reason


def test_a_call_at_the_limit_is_still_a_call():
    result = {"tool_calls": [CALL], "usage": USAGE}
    assert native_reply_to(enveloped(result), max_tokens=12).finish_reason == "tool_calls"


def test_counts_may_be_floats_and_come_on_every_chunk_and_alone():
    chunks = [{"response": "x", "usage": {"prompt_tokens": 41.0, "completion_tokens": n}} for n in (1.0, 2.0)]
    assert native_reply_to(*chunks, {"usage": {"completion_tokens": 3.0}}, DONE).usage == Usage(41, 3)


def test_neurons_are_worked_out_as_an_estimate_of_the_cost():
    usage = native_reply_to(enveloped({"response": "Hi", "usage": USAGE | {"neurons": 2.5}})).usage
    assert usage.cost_usd == pytest.approx(2.5 * 0.011 / 1000)
    assert usage.cost_is_estimate
