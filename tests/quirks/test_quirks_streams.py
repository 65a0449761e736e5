"""How a reply arrives in pieces, and how it breaks off."""

import asyncio

import pytest

from llama_vision import Reply
from llama_vision.core.errors import (
    InvalidRequestError,
    MalformedReplyError,
    RateLimitError,
    ServerError,
    TruncatedStreamError,
)
from llama_vision.core.events import Event, Finished, TextDelta
from llama_vision.langchain import ChatLlamaVision
from tests.emulator import HANG_UP, completion, event_stream, json_answer, sse
from tests.emulator.asking import collected
from tests.quirks.talk import ask, backend, request

CHAT = "deepinfra"
NATIVE = "cloudflare"
SIZES = {"prompt_tokens": 45, "completion_tokens": 2, "total_tokens": 47}
NONE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
PARIS = '{"city": "Paris"}'


def words(text, **more):
    return {"choices": [{"index": 0, "delta": {"content": text, **more}}]}


def piece(*, arguments=None, name=None, **more):
    function = {"name": name, "arguments": arguments}
    return {**more, "function": {key: value for key, value in function.items() if value is not None}}


def calling(*fragments):
    return {"choices": [{"index": 0, "delta": {"tool_calls": list(fragments)}}]}


def events(emulator, provider, way) -> list[Event]:
    opened = backend(emulator, provider)
    if way == "stream":
        return list(opened.stream(request(provider)))
    return asyncio.run(collected(opened.astream(request(provider))))


def streamed(emulator_of, way, provider, *steps, end="[DONE]") -> Reply:
    emulator = emulator_of(provider)
    emulator.script(event_stream(*steps, *([end] if end else [])))
    return ask(emulator, provider, way)


@pytest.mark.parametrize("provider", ["aigateway", "aimlapi"])
def test_quirk_30_a_chunk_without_choices_tells_counts_or_the_cost(emulator_of, streamed_way, provider):
    emulator = emulator_of(provider)
    usage = {**SIZES, "estimated_cost": 0.00124}
    emulator.script(completion("Hi there", usage=usage))
    reply = ask(emulator, provider, streamed_way)
    assert (reply.text, reply.usage.input_tokens, reply.usage.cost_usd) == ("Hi there", 45, 0.00124)


def test_quirk_30_choices_may_be_an_empty_list(emulator_of, streamed_way):
    last = {"choices": [], "usage": SIZES}
    reply = streamed(emulator_of, streamed_way, CHAT, {"choices": []}, words("Hi"), END, last)
    assert (reply.text, reply.usage.input_tokens) == ("Hi", 45)


ROLES = {
    "on every chunk": [words("Hi", role="assistant"), words(" there", role="assistant"), END],
    "never": [words("Hi"), words(" there"), END],
    "on a first chunk of its own": [
        {"choices": [{"delta": {"role": "assistant"}}]},
        words("Hi"),
        words(" there"),
        END,
    ],
}


@pytest.mark.parametrize("roles", ROLES)
def test_quirk_31_the_role_says_nothing(emulator_of, streamed_way, roles):
    assert streamed(emulator_of, streamed_way, CHAT, *ROLES[roles]).text == "Hi there"
    emulator = emulator_of(CHAT)
    emulator.script(event_stream(*ROLES[roles], "[DONE]"))
    model = ChatLlamaVision(provider=CHAT, base_url=emulator.base_url, api_key=emulator.api_key)
    assert [chunk.text for chunk in model.stream("Hello!") if chunk.text] == ["Hi", " there"]


@pytest.mark.parametrize("end", ["[DONE]", None])
def test_quirk_32_the_words_beside_the_reason_to_end_come_before_it(emulator_of, streamed_way, end):
    last = {"choices": [{"index": 0, "delta": {"content": "!"}, "finish_reason": "stop"}]}
    emulator = emulator_of("aigateway")
    emulator.script(event_stream(words("Hi"), last, *([end] if end else [])))
    _, *rest = events(emulator, "aigateway", streamed_way)
    assert rest == [TextDelta("Hi"), TextDelta("!"), Finished("stop")]


@pytest.mark.parametrize("usages", [(SIZES, NONE), (NONE, SIZES), (SIZES, SIZES)], ids=str)
def test_quirk_33_two_ends_are_one_with_the_larger_counts(emulator_of, streamed_way, usages):
    emulator = emulator_of("cloudflare-openai")
    ends = [{**END, "usage": {**usage, "prompt_tokens_details": {"cached_tokens": 0}}} for usage in usages]
    emulator.script(event_stream(words("Hello"), *ends, "[DONE]"))
    came = events(emulator, "cloudflare-openai", streamed_way)
    assert [event for event in came if isinstance(event, Finished)] == [Finished("stop")]
    usage = Reply.from_events(came).usage
    assert (usage.input_tokens, usage.output_tokens) == (45, 2)


@pytest.mark.parametrize("second", [None, "stop"])
def test_quirk_33_the_first_reason_to_end_counts(emulator_of, streamed_way, second):
    cut, later = ({"choices": [{"delta": {}, "finish_reason": reason}]} for reason in ("length", second))
    assert streamed(emulator_of, streamed_way, CHAT, words("Hi"), cut, later).finish_reason == "length"


@pytest.mark.parametrize("provider", [CHAT, NATIVE])
def test_quirk_34_counts_on_every_chunk_are_not_added_up(emulator_of, streamed_way, provider):
    def chunk(count):
        said = words("a ") if provider == CHAT else {"response": "a "}
        cost = {"estimated_cost": count * 1e-6} if provider == CHAT else {"neurons": count / 11}
        return {**said, "usage": {"prompt_tokens": 45, "completion_tokens": count, **cost}}

    reply = streamed(
        emulator_of, streamed_way, provider, *map(chunk, range(1, 6)), *([END] * (provider == CHAT))
    )
    assert (reply.text, reply.usage.input_tokens, reply.usage.output_tokens) == ("a a a a a ", 45, 5)
    assert reply.usage.cost_usd == pytest.approx(5e-6)


def test_quirk_35_a_native_chunk_holds_padding_and_anything_for_an_answer(emulator_of, streamed_way):
    answers = ["Hi ", 1, None, "", " day", 0]
    steps = [{"response": answer, "tool_calls": [], "p": "abdefgh"} for answer in answers]
    assert streamed(emulator_of, streamed_way, NATIVE, *steps).text == "Hi 1 day0"


NOTHING = {"id": None, "type": None, "index": 0, "function": {"name": None, "arguments": ""}}
FRAGMENTS = {
    "nothing at the end": [
        [piece(id="a", name="f", arguments="", index=0)],
        [piece(index=0, arguments=PARIS)],
        [NOTHING],
    ],
    "id and name first": [
        [piece(id="a", name="f", index=0)],
        [piece(index=0, arguments='{"city"')],
        [piece(index=0, arguments=': "Paris"}')],
    ],
    "no index": [
        [piece(id="a", name="f", arguments='{"city"')],
        [piece(arguments=': "Paris"}')],
    ],
    "always index 0": [
        [piece(id="a", name="f", index=0, arguments=PARIS)],
        [piece(id="b", name="f", index=0, arguments=PARIS)],
    ],
    "two without an index": [
        [piece(id="a", name="f", arguments=PARIS), piece(id="b", name="f", arguments=PARIS)],
    ],
    "two in turns": [
        [piece(id="a", name="f", index=0), piece(id="b", name="f", index=1)],
        [piece(index=1, arguments='{"city": '), piece(index=0, arguments='{"city": ')],
        [piece(index=0, arguments='"Paris"}'), piece(index=1, arguments='"Paris"}')],
    ],
}  # fmt: skip


@pytest.mark.parametrize("provider", [CHAT, NATIVE])
@pytest.mark.parametrize("form", FRAGMENTS)
def test_quirk_36_fragments_find_their_call(emulator_of, streamed_way, form, provider):
    fragments = FRAGMENTS[form]
    steps = [calling(*some) if provider == CHAT else {"tool_calls": some} for some in fragments]
    reply = streamed(emulator_of, streamed_way, provider, *steps)
    ids = {fragment.get("id") for some in fragments for fragment in some} - {None}
    assert [(call.id, call.name, call.arguments) for call in reply.tool_calls] == [
        (wire_id, "f", PARIS) for wire_id in sorted(ids)
    ]


def test_quirk_37_arguments_that_were_cut_off_are_not_read(emulator_of, way):
    emulator = emulator_of(CHAT)
    emulator.script(completion(calls=[("pay", '{"amount": 10')], finish_reason="length"))
    reply = ask(emulator, CHAT, way)
    (call,) = reply.tool_calls
    assert (reply.finish_reason, call.arguments) == ("length", '{"amount": 10')
    with pytest.raises(ValueError, match="delimiter"):
        call.parsed()


def test_quirk_37_langchain_does_not_get_a_call_that_was_cut_off(emulator_of):
    emulator = emulator_of(CHAT)
    emulator.script(completion(calls=[("pay", '{"amount": 10')], finish_reason="length"))
    model = ChatLlamaVision(provider=CHAT, base_url=emulator.base_url, api_key=emulator.api_key)
    message = model.invoke("Pay 100!")
    assert message.tool_calls == []
    assert [call["args"] for call in message.invalid_tool_calls] == ['{"amount": 10']


FAILURES = {
    "object": (sse({"error": {"message": "oh no", "code": 502}}), ServerError),
    "string": (sse({"error": "oh no"}), ServerError),
    "detail": (sse({"detail": "oh no"}), ServerError),
    "flat": (sse({"message": "oh no", "statusCode": "429", "requestId": "r"}), RateLimitError),
    "in a choice's place": (sse({"object": "error", "message": "oh no", "code": 400}), InvalidRequestError),
    "beside a choice": (
        sse({**END, "error": {"message": "oh no", "code": 429}}),
        RateLimitError,
    ),
    "envelope": (sse({"success": False, "errors": [{"code": 3040, "message": "oh no"}]}), RateLimitError),
    "named, object": (b"event: error\n" + sse({"message": "oh no", "code": 502}), ServerError),
    "named, error": (b"event: error\n" + sse({"error": {"message": "oh no", "code": 429}}), RateLimitError),
    "named, string": (b"event: error\n" + sse('"oh no"'), ServerError),
    "named, plain": (b"event: error\n" + sse("oh no"), MalformedReplyError),
}


@pytest.mark.parametrize("provider", [CHAT, NATIVE, "aimlapi", "cloudflare-openai"])
@pytest.mark.parametrize("form", FAILURES)
def test_quirk_38_a_failure_after_the_first_words_is_raised_with_them_and_not_asked_again(
    emulator_of, streamed_way, form, provider
):
    step, kind = FAILURES[form]
    if form == "envelope" and "cloudflare" not in provider:  # the code is Cloudflare's
        kind = ServerError
    emulator = emulator_of(provider)
    emulator.script(event_stream({**words("Hi there"), "response": "Hi there"}, step, "[DONE]"))
    with pytest.raises(kind, match="oh no") as caught:
        ask(emulator, provider, streamed_way)
    assert caught.value.partial.text == "Hi there"
    assert len(emulator.requests) == 1


@pytest.mark.parametrize("end", [(HANG_UP,), ()], ids=["cut", "ended"])
@pytest.mark.parametrize("provider", [CHAT, NATIVE, "aigateway", "cloudflare-openai"])
def test_quirk_39_a_stream_that_breaks_off_is_an_error_and_no_short_answer(
    emulator_of, streamed_way, provider, end
):
    emulator = emulator_of(provider)
    emulator.script(event_stream({**words("Hi there"), "response": "Hi there"}, *end))
    with pytest.raises(TruncatedStreamError) as caught:
        ask(emulator, provider, streamed_way)
    assert (caught.value.partial.text, caught.value.partial.finish_reason) == ("Hi there", None)
    assert len(emulator.requests) == 1


def test_quirk_39_the_end_mark_may_be_missing_after_a_reason_to_end(emulator_of, streamed_way):
    assert streamed(emulator_of, streamed_way, CHAT, words("Hi"), END, end=None).finish_reason == "stop"


@pytest.mark.parametrize("later", [words("more"), {"error": "late"}, b"data: {broken\n\n"], ids=str)
def test_quirk_39_what_follows_the_end_mark_is_not_looked_at(emulator_of, streamed_way, later):
    reply = streamed(emulator_of, streamed_way, CHAT, words("Hi"), END, "[DONE]", later, end=None)
    assert reply.text == "Hi"


JSON = b'{"choices": [{"delta": {"content": "a\xc3\xbc\xe2\x80\xa8\xc2\x85z"}, "finish_reason": "stop"}]}'
SYNTAX = {
    "comments": [b": OPENROUTER PROCESSING\n\n:\n", b"data: " + JSON + b"\n\n: more\n\n"],
    "no space": [b"data:" + JSON + b"\n\n"],
    "CRLF": [b"data: " + JSON + b"\r\n\r\n"],
    "CRLF in two": [b"data: " + JSON + b"\r", b"\n\r", b"\n"],
    "CR": [b"data: " + JSON + b"\r\r"],
    "several lines": [b"data: " + JSON.replace(b", ", b",\ndata: ") + b"\n\n"],
    "BOM": [b"\xef\xbb\xbfdata: " + JSON + b"\n\n"],
    "BOM in pieces": [b"\xef", b"\xbb", b"\xbfdata: " + JSON + b"\n\n"],
    "no blank line": [b"data: " + JSON],
    "other fields": [b"event: message\nid: 7\nretry: 100\ndata: " + JSON + b"\n\n"],
    "byte by byte": [bytes([byte]) for byte in b"data: " + JSON + b"\n\n"],
}


@pytest.mark.parametrize("form", SYNTAX)
def test_quirk_40_an_event_stream_is_read_as_the_standard_says(emulator_of, streamed_way, form):
    reply = streamed(emulator_of, streamed_way, CHAT, *SYNTAX[form], end=None)
    assert (reply.text, reply.finish_reason) == ("aü\u2028\u0085z", "stop")


HEARTBEATS = {
    "no data": b"data:\n\n",
    "a blank": b"data: \n\n",
    "named": b"event: heartbeat\ndata: ping\n\n",
    "ping, an object": b"event: ping\ndata: {}\n\n",
    "null": b"data: null\n\n",
    "ping": b"data: ping\n\n",
    "keep-alive": b"data: keep-alive \n\n",
}


@pytest.mark.parametrize("provider", [CHAT, NATIVE])
@pytest.mark.parametrize("form", HEARTBEATS)
def test_heartbeats_are_skipped_wherever_they_come(emulator_of, streamed_way, form, provider):
    beat = HEARTBEATS[form]
    hello = {**words("Hello"), "response": "Hello"}
    reply = streamed(emulator_of, streamed_way, provider, beat, hello, beat, beat, "[DONE]", beat, end=None)
    assert (reply.text, reply.finish_reason) == ("Hello", "stop")


@pytest.mark.parametrize("form", HEARTBEATS)
def test_heartbeats_alone_are_no_reply(emulator_of, streamed_way, form):
    with pytest.raises(TruncatedStreamError):
        streamed(emulator_of, streamed_way, CHAT, HEARTBEATS[form], end=None)


def test_heartbeats_do_not_stop_langchain(emulator_of):
    emulator = emulator_of(CHAT)
    emulator.script(event_stream(*HEARTBEATS.values(), words("Hello"), *HEARTBEATS.values(), END, "[DONE]"))
    model = ChatLlamaVision(provider=CHAT, base_url=emulator.base_url, api_key=emulator.api_key)
    assert "".join(chunk.text for chunk in model.stream("Hi")) == "Hello"


@pytest.mark.parametrize("provider", [CHAT, NATIVE])
@pytest.mark.parametrize("done", [b"[DONE] ", b"  [DONE]", b" [DONE]\t", b"[DONE] bye", b"[DONE]\ndata: "])
def test_the_end_mark_may_have_blanks_around_it_and_more_behind_it(emulator_of, streamed_way, done, provider):
    hello = {**words("Hello"), "response": "Hello"}
    reply = streamed(emulator_of, streamed_way, provider, hello, b"data: " + done + b"\n\n", end=None)
    assert (reply.text, reply.finish_reason) == ("Hello", "stop")


@pytest.mark.parametrize("line", ["{broken", '{"choices": 7}', "<html>"])
@pytest.mark.parametrize("provider", [CHAT, NATIVE])
def test_quirk_41_a_line_that_cannot_be_read_is_quoted_and_not_passed_over(
    emulator_of, streamed_way, provider, line
):
    emulator = emulator_of(provider)
    emulator.script(event_stream({**words("Hi"), "response": "Hi"}, f"data: {line}\n\n".encode(), "[DONE]"))
    with pytest.raises(MalformedReplyError) as caught:
        ask(emulator, provider, streamed_way)
    assert line in str(caught.value)
    assert caught.value.partial.text == "Hi"


def test_quirk_41_a_whole_body_that_cannot_be_read_is_quoted_too(emulator_of, way):
    emulator = emulator_of(CHAT)
    emulator.script(json_answer({"choices": "none"}))
    with pytest.raises(MalformedReplyError, match="none"):
        ask(emulator, CHAT, way)
