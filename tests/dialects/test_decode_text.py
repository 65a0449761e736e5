"""Words, reasons and names of a reply, whole and streamed."""

import pytest

from llama_vision.core.errors import MalformedReplyError
from llama_vision.core.events import Finished, Started, TextDelta, UsageReport
from llama_vision.core.reply import Reply
from llama_vision.core.usage import Usage
from llama_vision.dialects.chat_completions.dialect import ChatCompletionsDialect
from tests.dialects.replies import DONE, chunk, encoded, events_of, reply_to, whole


def test_a_whole_body_gives_the_events_of_a_reply_in_order():
    assert events_of(whole({"content": "Hi"}, usage={"prompt_tokens": 1})) == [
        Started("llama", "chatcmpl-1"),
        TextDelta("Hi"),
        UsageReport(Usage(input_tokens=1)),
        Finished("stop"),
    ]


def test_a_stream_gives_its_words_as_they_come():
    decoder = ChatCompletionsDialect().decoder("asked", {})
    assert decoder.feed(encoded(chunk({"content": "Hel"}))) == [
        Started("llama", "chatcmpl-1"),
        TextDelta("Hel"),
    ]
    assert decoder.feed(encoded(chunk({"content": "lo"}))) == [TextDelta("lo")]
    assert decoder.feed(encoded(chunk(finish_reason="stop"))) == []
    assert decoder.close() == [Finished("stop")]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Hi", "Hi"),
        (" Hi", " Hi"),
        ("", ""),
        (42, "42"),
        ([{"type": "text", "text": "Hi"}, {"type": "text", "text": " there"}], "Hi there"),
        ([{"type": "text", "text": None}, {"type": "image"}, "Hi", None], "Hi"),
        ([{"text": 42}, {"text": ["?"]}, 7], "42['?']"),
        ([], ""),
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    "payloads",
    [lambda message: [whole(message)], lambda message: [chunk(message), chunk(finish_reason="stop"), DONE]],
    ids=["whole", "streamed"],
)
def test_content_in_any_form(payloads, content, text):
    assert reply_to(*payloads({"content": content})).text == text


@pytest.mark.parametrize("delta", [{"content": ""}, {"role": "assistant"}, {}], ids=repr)
def test_a_stream_without_words_is_an_empty_text(delta):
    assert reply_to(chunk(delta), chunk(finish_reason="stop"), DONE).text == ""


def test_a_stream_of_null_alone_is_no_reply_just_as_a_whole_body_is_none():
    with pytest.raises(MalformedReplyError, match="neither text nor tool calls"):
        reply_to(chunk({"content": None}), chunk(finish_reason="stop"), DONE)


@pytest.mark.parametrize("message", [{}, {"content": None}, {"content": None, "tool_calls": []}], ids=repr)
@pytest.mark.parametrize("reason", ["stop", None])
def test_a_whole_body_that_says_nothing_at_all_is_no_reply(message, reason):
    # Cloudflare's /ai/v1 answers so to an image it did not look at.
    with pytest.raises(MalformedReplyError, match="neither text nor tool calls"):
        reply_to(whole(message, finish_reason=reason))


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_a_reason_to_say_nothing_makes_it_a_reply(reason):
    assert reply_to(whole({}, finish_reason=reason)) == Reply(
        finish_reason=reason, model="llama", id="chatcmpl-1"
    )


@pytest.mark.parametrize("message", [{"refusal": "I won't."}, {"content": None, "refusal": "I won't."}])
def test_a_refusal_is_what_the_model_said(message):
    assert reply_to(whole(message)).text == "I won't."


def test_without_a_model_and_an_id_the_asked_one_stands():
    reply = reply_to({"choices": [{"message": {"content": "Hi"}}]})
    assert (reply.model, reply.id) == ("asked", None)


@pytest.mark.parametrize(
    ("headers", "request_id"),
    [
        ({}, None),
        ({"x-request-id": "req-1", "cf-ray": "ray-1"}, "req-1"),
        ({"x-inference-id": "inf-1"}, "inf-1"),
        ({"cf-aig-log-id": "log-1", "cf-ray": "ray-1"}, "log-1"),
        ({"cf-ray": "ray-1"}, "ray-1"),
    ],
)
def test_the_id_for_support_comes_from_the_headers(headers, request_id):
    assert reply_to(whole({"content": "Hi"}), headers=headers).request_id == request_id


@pytest.mark.parametrize(("field", "value", "read"), [("id", 17, "17"), ("model", 3.5, "3.5")])
def test_numbers_where_words_belong_are_taken_as_words(field, value, read):
    assert getattr(reply_to(whole({"content": "Hi"}, **{field: value})), field) == read


def test_a_numeric_finish_reason_is_kept_as_a_word():
    assert reply_to(whole({"content": "Hi"}, finish_reason=200012)).finish_reason == "200012"


@pytest.mark.parametrize("reason", ["length", "content_filter", "model_length", "eos", "function_call"])
@pytest.mark.parametrize("wrap", [whole, chunk])
def test_every_finish_reason_is_kept(wrap, reason):
    assert reply_to(wrap({"content": "Hi"}, finish_reason=reason)).finish_reason == reason


@pytest.mark.parametrize(
    "payloads", [[whole({"content": "Hi"}, finish_reason=None)], [chunk({"content": "Hi"}), DONE]]
)
def test_a_missing_finish_reason_is_a_stop(payloads):
    assert events_of(*payloads)[-1] == Finished("stop")


def test_words_on_the_finish_chunk_come_before_the_end():
    events = events_of(chunk({"content": "Hi"}), chunk({"content": "!"}, finish_reason="stop"), DONE)
    assert events[-2:] == [TextDelta("!"), Finished("stop")]


def test_the_first_of_two_finish_reasons_counts():
    events = events_of(chunk({"content": "Hi"}, finish_reason="length"), chunk(finish_reason="stop"), DONE)
    assert [event for event in events if isinstance(event, Finished)] == [Finished("length")]


@pytest.mark.parametrize(
    "first",
    [{"role": "assistant"}, {"role": "assistant", "content": ""}, {"role": None, "content": None}, {}],
    ids=repr,
)
def test_a_first_chunk_without_words_only_starts(first):
    events = events_of(chunk(first), chunk({"role": "assistant", "content": "Hi"}), DONE)
    assert events == [Started("llama", "chatcmpl-1"), TextDelta("Hi"), Finished("stop")]


@pytest.mark.parametrize(
    "choice", [{"index": 0}, {"index": 0, "delta": None}, {"delta": None, "message": None}]
)
def test_a_choice_that_says_nothing_adds_nothing(choice):
    assert reply_to(chunk({"content": "Hi"}), {"choices": [choice]}, DONE).text == "Hi"


@pytest.mark.parametrize("number", [1, 2, 7])
def test_only_the_first_of_several_answers_is_read(number):
    second = {"index": number, "delta": {"content": "No"}, "finish_reason": "length"}
    reply = reply_to(chunk({"content": "Yes"}), {"choices": [second]}, chunk(finish_reason="stop"), DONE)
    assert (reply.text, reply.finish_reason) == ("Yes", "stop")


def test_unknown_fields_are_ignored():
    reply = reply_to(
        whole(
            {"content": "Hi", "reasoning_content": "...", "token_ids": [1]}, logprobs=None, service_tier="x"
        )
    )
    assert reply.text == "Hi"


def test_a_stream_may_be_answered_with_a_whole_body():
    assert reply_to(whole({"content": "Hi"}), DONE).text == "Hi"


def test_what_comes_after_the_end_mark_is_not_looked_at():
    decoder = ChatCompletionsDialect().decoder("asked", {})
    decoder.feed(encoded(chunk({"content": "Hi"})))
    assert not decoder.done
    assert decoder.feed(DONE) == []
    assert decoder.done
    assert decoder.feed(b"rubbish") == []
    assert decoder.close() == [Finished("stop")]


def test_one_dialect_reads_several_replies_at_once():
    dialect = ChatCompletionsDialect()
    first, second = dialect.decoder("a", {}), dialect.decoder("b", {})
    events = {
        "a": first.feed(encoded(chunk({"content": "1<"}))),
        "b": second.feed(encoded(chunk({"content": "2"}))),
    }
    events["b"] += second.feed(DONE) + second.close()
    events["a"] += first.feed(DONE) + first.close()
    assert {name: Reply.from_events(read).text for name, read in events.items()} == {"a": "1<", "b": "2"}
