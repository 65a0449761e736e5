"""What a reply consumed, in all the ways providers tell it."""

import json

import pytest

from llama_vision.core.errors import MalformedReplyError
from llama_vision.core.events import Started, TextDelta, UsageReport
from llama_vision.core.usage import Usage
from llama_vision.dialects.chat_completions.dialect import ChatCompletionsDialect
from llama_vision.dialects.chat_completions.usage import CostField, UsageFormat
from tests.dialects.replies import DONE, chunk, encoded, events_of, reply_to, whole


def reports(*payloads):
    return [event.usage for event in events_of(*payloads) if isinstance(event, UsageReport)]


@pytest.mark.parametrize(
    ("wire", "usage"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}, Usage(5, 2)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 99}, Usage(5, 2)),
        ({"prompt_tokens": 5.0, "completion_tokens": 2.0}, Usage(5, 2)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(0, 0)),
        ({"prompt_tokens": 5}, Usage(5)),
        (
            {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 3}},
            Usage(5, None, 3),
        ),
        ({"prompt_tokens": 5, "prompt_tokens_details": None}, Usage(5)),
        ({"prompt_tokens": 5, "prompt_tokens_details": {}}, Usage(5)),
        ({"estimated_cost": 0.0000268}, Usage(cost_usd=0.0000268)),
        ({"cost": 0.002}, Usage(cost_usd=0.002)),
        ({"cost": 0, "estimated_cost": 0.3}, Usage(cost_usd=0)),
        ({"prompt_tokens": 5, "neurons": 1000}, Usage(5, cost_usd=0.011, cost_is_estimate=True)),
        ({"prompt_tokens": 5, "neurons": 0}, Usage(5, cost_usd=0, cost_is_estimate=True)),
        ({"cost": 0.002, "neurons": 1000}, Usage(cost_usd=0.002)),
    ],
    ids=repr,
)
def test_a_report(wire, usage):
    assert reply_to(whole({"content": "Hi"}, usage=wire)).usage == usage


@pytest.mark.parametrize(
    "fields", [{}, {"usage": None}, {"usage": {}}, {"usage": {"prompt_tokens": None}}], ids=repr
)
def test_no_report_is_made_where_nobody_said(fields):
    assert reports(whole({"content": "Hi"}, **fields)) == []
    assert reply_to(whole({"content": "Hi"}, **fields)).usage == Usage()


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_none_counts_as_not_said(number):
    body = json.dumps(
        whole({"content": "Hi"}, usage={"prompt_tokens": 5, "completion_tokens": "X", "cost": "X"})
    )
    assert reply_to(body.replace('"X"', number).encode()).usage == Usage(5)


@pytest.mark.parametrize(
    "last",
    [
        {"usage": {"prompt_tokens": 5, "completion_tokens": 2}},
        {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}},
        {"choices": None, "usage": {"prompt_tokens": 5, "completion_tokens": 2}},
        chunk(usage={"prompt_tokens": 5, "completion_tokens": 2}),
    ],
    ids=["without choices", "empty choices", "null choices", "with a choice"],
)
def test_a_stream_may_tell_it_after_the_end(last):
    reply = reply_to(chunk({"content": "Hi"}), chunk(finish_reason="stop"), last, DONE)
    assert (reply.text, reply.usage) == ("Hi", Usage(5, 2))


def test_usage_may_come_first():
    reply = reply_to({"usage": {"prompt_tokens": 5}}, chunk({"content": "Hi"}), DONE)
    assert (reply.text, reply.usage) == ("Hi", Usage(5))


def test_counts_on_every_chunk_grow_and_are_not_added_up():
    chunks = [
        chunk({"content": "x"}, usage={"prompt_tokens": 5, "completion_tokens": count}) for count in (1, 2, 3)
    ]
    assert reports(*chunks, DONE) == [Usage(5, 1), Usage(5, 2), Usage(5, 3)]


def test_the_same_counts_again_are_no_news():
    chunks = [chunk({"content": "x"}, usage={"prompt_tokens": 5})] * 3
    assert reports(*chunks, DONE) == [Usage(5)]


def test_zeros_on_a_second_finish_chunk_do_not_undo_the_first():
    finish = {"finish_reason": "stop"}
    reply = reply_to(
        chunk({"content": "Hi"}),
        chunk(**finish, usage={"prompt_tokens": 45, "completion_tokens": 2}),
        chunk(**finish, usage={"prompt_tokens": 0, "completion_tokens": 0}),
        DONE,
    )
    assert reply.usage == Usage(45, 2)


@pytest.mark.parametrize(
    "payload",
    [{"meta": {}}, {"meta": {"usage": {"credits_used": 2480}}}, {"choices": []}, {}],
    ids=repr,
)
def test_a_chunk_of_the_providers_own_is_passed_over(payload):
    reply = reply_to(chunk({"content": "Hi"}), payload, chunk(finish_reason="stop"), payload, DONE)
    assert (reply.text, reply.usage, reply.finish_reason) == ("Hi", Usage(), "stop")


META = {"meta": {"usage": {"credits_used": 2480, "usd_spent": 0.00124}}}


@pytest.mark.parametrize(
    "payloads",
    [
        [chunk({"content": "Hi"}), chunk(finish_reason="stop"), META, DONE],
        [META, chunk({"content": "Hi"}), DONE],
        [whole({"content": "Hi"}, **META)],
    ],
    ids=["last", "first", "whole"],
)
def test_the_cost_may_come_in_a_report_of_its_own(payloads):
    # AI/ML API, https://docs.aimlapi.com/capabilities/request-tracing-and-cost
    assert reply_to(*payloads).usage == Usage(cost_usd=0.00124)


def test_a_cost_that_comes_after_the_counts_joins_them():
    counted = chunk(finish_reason="stop", usage={"prompt_tokens": 5, "completion_tokens": 2})
    assert reports(chunk({"content": "Hi"}), counted, META, DONE) == [
        Usage(5, 2),
        Usage(5, 2, cost_usd=0.00124),
    ]


@pytest.mark.parametrize(
    ("headers", "cost"),
    [
        ({"x-cost-cents": "0.0268"}, 0.000268),
        ({"x-aimlapi-usd-spent": "0.00124"}, 0.00124),
        ({"x-cost-cents": "0"}, 0),
        ({"x-cost-cents": "free"}, None),
        ({"x-cost-cents": ""}, None),
        ({"x-cost-cents": "nan"}, None),
        ({"x-cost-cents": "free", "x-aimlapi-usd-spent": "0.00124"}, 0.00124),
        ({"x-cost": "1"}, None),
    ],
    ids=repr,
)
@pytest.mark.parametrize("payloads", [[whole({"content": "Hi"})], [chunk({"content": "Hi"}), DONE]])
def test_the_cost_may_stand_in_the_headers(payloads, headers, cost):
    usage = reply_to(*payloads, headers=headers).usage
    assert usage.cost_usd == pytest.approx(cost)
    assert not usage.cost_is_estimate


def test_a_cost_that_is_told_beats_one_worked_out_from_neurons():
    body = whole({"content": "Hi"}, usage={"neurons": 10_000})
    assert reply_to(body, headers={"x-cost-cents": "0.1"}).usage == Usage(cost_usd=0.001)


def test_groq_tells_the_counts_of_a_stream_in_a_place_of_its_own():
    last = chunk(finish_reason="stop", x_groq={"id": "req_1", "usage": {"prompt_tokens": 5}})
    assert reports(chunk({"content": "Hi"}, x_groq={"id": "req_1"}), last, DONE) == [Usage(5)]


@pytest.mark.parametrize(
    "fields",
    [
        {"usage": {"estimated_cost": 0.3, "neurons": 1000, "usd_spent": 0.3}},
        META,
        {"x_groq": {"usage": {"prompt_tokens": 5}}},
    ],
    ids=repr,
)
def test_a_field_of_one_provider_means_nothing_at_another(fields):
    headers = {"x-cost-cents": "2", "x-aimlapi-usd-spent": "2"}
    usage = reply_to(
        whole({"content": "Hi"}, **fields), headers=headers, dialect=ChatCompletionsDialect()
    ).usage
    assert usage == Usage()


@pytest.mark.parametrize("usage", [{"prompt_tokens": "many"}, {"prompt_tokens": []}], ids=repr)
def test_usage_that_is_no_number_is_unreadable_wherever_it_stands(usage):
    for fields in ({"usage": usage}, {"x_groq": {"usage": usage}}, {"meta": {"usage": usage}}):
        with pytest.raises(MalformedReplyError, match="can't be read"):
            reply_to(whole({"content": "Hi"}, **fields))


@pytest.mark.parametrize("cost", ["free", None, [], {}, 10**400], ids=lambda cost: repr(cost)[:9])
def test_a_cost_that_is_no_number_counts_as_not_said(cost):
    assert reply_to(whole({"content": "Hi"}, usage={"prompt_tokens": 5, "cost": cost})).usage == Usage(5)


def test_counts_in_two_places_of_one_payload_are_one_report():
    payload = chunk(
        finish_reason="stop", usage={"prompt_tokens": 5}, x_groq={"usage": {"completion_tokens": 2}}
    )
    assert reports(chunk({"content": "Hi"}), payload, DONE) == [Usage(5, 2)]


def test_a_cost_in_the_headers_is_told_with_the_first_words():
    dialect = ChatCompletionsDialect(usage=UsageFormat(cost_headers=(CostField("x-cost"),)))
    decoder = dialect.decoder("asked", {"x-cost": "0.5"})
    assert decoder.feed(encoded(chunk({"content": "Hi"}))) == [
        Started("llama", "chatcmpl-1"),
        UsageReport(Usage(cost_usd=0.5)),
        TextDelta("Hi"),
    ]
