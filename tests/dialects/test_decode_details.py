"""What replies carry beside the text, in forms that must not lose the reply."""

import pytest

from llama_vision.core.events import LogprobsDelta, MetadataReport, ReasoningDelta, Started, TextDelta
from tests.dialects.replies import DONE, chunk, events_of, reply_to, whole


def both(message, *, choice=None, **fields):
    """Decode a reply that comes whole, and one that comes in a chunk."""
    streamed = chunk(message, finish_reason="stop", **fields)
    body = whole(message, **fields)
    for payload in (streamed, body):
        payload["choices"][0] |= choice or {}
    return [reply_to(body), reply_to(streamed, DONE)]


@pytest.mark.parametrize("odd", [{"effort": "low"}, 7, True, [], {}, None, ""], ids=repr)
def test_reasoning_that_is_no_text_does_not_lose_the_reply(odd):
    for reply in both({"content": "Hi", "reasoning": odd}):
        assert (reply.text, reply.reasoning) == ("Hi", "")


@pytest.mark.parametrize("content", [None, ""])
def test_reasoning_alone_is_a_reply(content):
    for reply in both({"content": content, "reasoning": "Hm."}):
        assert (reply.text, reply.reasoning) == ("", "Hm.")


def test_reasoning_in_blocks_is_read():
    for reply in both({"content": "Hi", "reasoning_content": [{"type": "text", "text": "Let me "}, "look."]}):
        assert reply.reasoning == "Let me look."


def test_log_probabilities_of_the_older_form_are_kept_as_they_are():
    logprobs = {"tokens": ["Hi"], "token_logprobs": [-0.25], "text_offset": None}
    for reply in both({"content": "Hi"}, choice={"logprobs": logprobs}):
        assert reply.logprobs == {"tokens": ["Hi"], "token_logprobs": [-0.25]}


@pytest.mark.parametrize("odd", [[], "none", 7, True, {"content": None}, {"content": {}}], ids=repr)
def test_log_probabilities_of_no_known_form_do_not_lose_the_reply(odd):
    for reply in both({"content": "Hi"}, choice={"logprobs": odd}):
        assert (reply.text, reply.logprobs) == ("Hi", {})


def test_half_a_surrogate_pair_in_reasoning_or_a_token_can_be_sent_on():
    payload = (
        b'{"choices":[{"index":0,"finish_reason":"stop","message":{"content":"Hi","reasoning":"a\\ud83d"},'
        b'"logprobs":{"content":[{"token":"\\ud83d","logprob":-1,"top_logprobs":[]}]}}]}'
    )
    reply = reply_to(payload)
    assert reply.reasoning == "a\ufffd"
    assert reply.logprobs == {"content": [{"token": "\ufffd", "logprob": -1, "top_logprobs": []}]}


def test_log_probabilities_nested_without_end_do_not_lose_the_reply():
    nested = b"[" * 490 + b"]" * 490
    payload = (
        b'{"choices":[{"index":0,"finish_reason":"stop","message":{"content":"Hi\\ud83d"},'
        b'"logprobs":{"content":[' + nested + b"]}}]}"
    )
    assert reply_to(payload).text == "Hi\ufffd"


def test_a_pair_that_is_cut_apart_in_reasoning_is_joined():
    halves = [chunk({"reasoning": half}) for half in ("\ud83d", "\ude00")]
    payloads = [str(half).replace("None", "null").replace("'", '"').encode() for half in halves]
    assert reply_to(*payloads, chunk({"content": "Hi"}, finish_reason="stop"), DONE).reasoning == "\U0001f600"


@pytest.mark.parametrize(
    "details",
    [
        [],
        "many",
        7,
        {"cached_tokens": "three"},
        {"image_tokens": {}},
        {"image_tokens": True},
        {"image_tokens": None},
    ],
    ids=repr,
)
def test_token_details_that_are_no_counts_do_not_lose_the_reply(details):
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": details}
    for reply in both({"content": "Hi"}, usage=usage):
        assert (reply.usage.input_tokens, reply.usage.cached_input_tokens) == (5, None)
        assert reply.usage.input_token_details == {}


@pytest.mark.parametrize("odd", [7, {}, [], True, ""], ids=repr)
def test_a_service_tier_that_is_no_text_does_not_lose_the_reply(odd):
    for reply in both({"content": "Hi"}, service_tier=odd, system_fingerprint=odd):
        assert (reply.text, reply.metadata) == ("Hi", {})


def test_what_every_chunk_repeats_is_reported_once_and_a_change_again():
    chunks = [
        chunk({"content": "Hi"}, system_fingerprint="fp", service_tier=tier)
        for tier in ("auto", "auto", "flex")
    ]
    events = events_of(*chunks, DONE, headers={"x-ratelimit-limit-tokens": "9", "date": "now"})
    assert events[0].rate_limits == {"x-ratelimit-limit-tokens": "9"}
    assert [event.metadata for event in events if isinstance(event, MetadataReport)] == [
        {"service_tier": "auto", "system_fingerprint": "fp"},
        {"service_tier": "flex"},
    ]


def test_events_come_in_the_order_of_the_chunks():
    first = chunk({"reasoning": "Hm."})
    second = chunk({"content": "Hi"}, finish_reason="stop")
    second["choices"][0]["logprobs"] = {"content": [{"token": "Hi", "logprob": -1}]}
    kinds = [type(event) for event in events_of(first, second, DONE)]
    assert kinds[:4] == [Started, ReasoningDelta, TextDelta, LogprobsDelta]
