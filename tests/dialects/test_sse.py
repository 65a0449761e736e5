"""Server-sent events: the payloads are the same however the bytes were cut."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_vision.core.errors import MalformedReplyError
from llama_vision.dialects import sse
from llama_vision.dialects.sse import SseDecoder

# Written with LF; every stream is also read with CRLF and with lone CRs.
STREAMS = {
    "two events": (b'data: {"a":1}\n\ndata: [DONE]\n\n', [b'{"a":1}', b"[DONE]"]),
    "no space after the colon": (b"data:x\n\ndata:  two spaces\n\n", [b"x", b" two spaces"]),
    "several data lines": (b"data: {\ndata: }\n\ndata: 2\n\n", [b"{\n}", b"2"]),
    "an empty data line": (b"data: a\ndata:\ndata: b\n\ndata:\n\n", [b"a\n\nb", b""]),
    "a data line without a colon": (b"data: a\ndata\n\n", [b"a\n"]),
    "comments": (b": OPENROUTER PROCESSING\n\n:\ndata: a\n: between\ndata: b\n\n:\n\n", [b"a\nb"]),
    "other fields": (b"id: 7\nretry: 10\nfoo: bar\ndatabase: no\ndata: a\n\n", [b"a"]),
    "many blank lines": (b"\n\ndata: a\n\n\n\ndata: b\n\n", [b"a", b"b"]),
    "a named event": (b"event: message\ndata: a\n\n", [b"a"]),
    "an error event": (
        b'event: error\ndata: {"code":502}\n\ndata: a\n\n',
        [b'{"error": {"code":502}}', b"a"],
    ),
    "an error event named without a space": (b"data: 1\nevent:error\n\n", [b'{"error": 1}']),
    "a heartbeat": (
        b"event: heartbeat\ndata: ping\n\nevent:ping\ndata: {}\n\ndata: a\n\nevent: ping\n\ndata: b\n\n",
        [b"a", b"b"],
    ),
    "an event name without data": (b"event: error\n\ndata: a\n\n", [b"a"]),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\ndata: \xef\xbb\xbfb\n\n", [b"a", b"\xef\xbb\xbfb"]),
    "a byte order mark later on": (b"data: a\n\n\xef\xbb\xbfdata: b\n\ndata: c\n\n", [b"a", b"c"]),
    "letters of several bytes": ("data: é 🦙 日本\n\n".encode(), ["é 🦙 日本".encode()]),
    "other line separators inside": (
        "data: a\u2028b\u2029c\u0085d\x0b\x0c\x1ce\n\n".encode(),
        ["a\u2028b\u2029c\u0085d\x0b\x0c\x1ce".encode()],
    ),
    "no blank line at the end": (b"data: a\n\ndata: [DONE]\n", [b"a", b"[DONE]"]),
    "no line end at the end": (b"data: a\n\ndata: [DONE]", [b"a", b"[DONE]"]),
    "a byte order mark and no line end": (b"\xef\xbb\xbfdata: a", [b"a"]),
    "only a byte order mark begun": (b"\xef\xbb", []),
    "nothing": (b"", []),
}
ENDINGS = {"LF": b"\n", "CRLF": b"\r\n", "CR": b"\r"}

every_stream = pytest.mark.parametrize(("stream", "payloads"), STREAMS.values(), ids=STREAMS.keys())
every_ending = pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS.keys())


def decode(*pieces):
    decoder = SseDecoder()
    payloads = [payload for piece in pieces for payload in decoder.feed(piece)]
    return payloads + decoder.close()


@every_ending
@every_stream
def test_whole(stream, payloads, ending):
    assert decode(stream.replace(b"\n", ending)) == payloads


@every_ending
@every_stream
def test_cut_in_two_at_every_place(stream, payloads, ending):
    stream = stream.replace(b"\n", ending)
    for cut in range(len(stream) + 1):
        assert decode(stream[:cut], stream[cut:]) == payloads, cut


@every_ending
@every_stream
def test_byte_by_byte(stream, payloads, ending):
    stream = stream.replace(b"\n", ending)
    assert decode(*(stream[place : place + 1] for place in range(len(stream)))) == payloads


@every_ending
@every_stream
def test_empty_pieces_between_all_bytes_change_nothing(stream, payloads, ending):
    stream = stream.replace(b"\n", ending)
    assert decode(*(piece for byte in stream for piece in (bytes([byte]), b""))) == payloads


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [b"data: a", b"data:", b"data", b"event: error", b": hi", b"", "data: é\u2028".encode()]
        )
        | st.binary(max_size=8),
    ),
    st.lists(st.sampled_from(list(ENDINGS.values())), min_size=1),
    st.lists(st.integers(min_value=0, max_value=200)),
    st.booleans(),
)
def test_any_bytes_give_the_same_payloads_however_they_are_cut(lines, endings, cuts, marked):
    stream = b"\xef\xbb\xbf" if marked else b""
    for number, line in enumerate(lines):
        stream += line + endings[number % len(endings)]
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(places)]
    assert decode(*pieces) == decode(stream)


@settings(deadline=None)
@given(st.lists(st.text().map(lambda text: text.replace("\r", "").replace("\n", ""))), st.data())
def test_what_was_sent_comes_out(payloads, data):
    ending = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    stream = "".join(f"data: {payload}{ending}{ending}" for payload in payloads).encode()
    cut = data.draw(st.integers(min_value=0, max_value=len(stream)))
    assert decode(stream[:cut], stream[cut:]) == [payload.encode() for payload in payloads]


def test_a_payload_comes_as_soon_as_its_blank_line():
    decoder = SseDecoder()
    assert decoder.feed(b"data: a\r\n\r") == [b"a"]
    assert decoder.feed(b"\ndata: b\r\n") == []
    assert decoder.feed(b"\r\n") == [b"b"]
    assert decoder.close() == []


def test_a_comment_keeps_nothing_waiting():
    decoder = SseDecoder()
    decoder.feed(b": keep-alive\n\n")
    assert decoder.feed(b"data: a\n\n") == [b"a"]


def test_line_feeds_behind_a_carriage_return_end_lines_of_their_own():
    decoder = SseDecoder()
    assert decoder.feed(b"data: a\r") == []
    assert decoder.feed(b"\n\n") == [b"a"]


TOO_LARGE = {
    "a line without end": b"data: " + b"x" * 100,
    "a line": b"data: " + b"x" * 100 + b"\n\ndata: b\n\n",
    "a comment": b": " + b"x" * 100 + b"\n\ndata: b\n\n",
    "a comment without end": b": " + b"x" * 100,
    "many lines": b"data: x\n" * 20 + b"\ndata: b\n\n",
    "many lines without data": b"data\n" * 30,
}


@pytest.mark.parametrize("stream", TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_an_event_that_is_too_large_is_an_error_behind_what_came_before(monkeypatch, stream):
    monkeypatch.setattr(sse, "MAX_PAYLOAD_BYTES", 100)
    stream = b"data: a\n\n" + stream
    for cut in range(len(stream) + 1):
        decoder, payloads = SseDecoder(), []

        def read(decoder=decoder, payloads=payloads, cut=cut):
            payloads += decoder.feed(stream[:cut])
            payloads += decoder.feed(stream[cut:])
            payloads += decoder.close()

        with pytest.raises(MalformedReplyError, match="an event of more than"):
            read()
        assert payloads == [b"a"]
        with pytest.raises(MalformedReplyError):
            decoder.feed(b"data: c\n\n")
        with pytest.raises(MalformedReplyError):
            decoder.close()


def test_many_events_of_the_largest_size_are_read(monkeypatch):
    monkeypatch.setattr(sse, "MAX_PAYLOAD_BYTES", 100)
    event = b"data: " + b"x" * 45 + b"\ndata:" + b"y" * 44
    payloads = [b"x" * 45 + b"\n" + b"y" * 44] * 20
    assert decode(*[event + b"\n\n"] * 20) == payloads
    assert decode(*(bytes([byte]) for byte in (event + b"\n\n") * 20)) == payloads


def test_decoders_share_nothing():
    first, second = SseDecoder(), SseDecoder()
    first.feed(b"data: a\n")
    second.feed(b"data: b\n")
    assert (first.close(), second.close()) == ([b"a"], [b"b"])
