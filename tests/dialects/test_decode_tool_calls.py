"""Tool calls, whole and in fragments, however carelessly they are numbered."""

import pytest

from llama_vision.core.errors import MalformedReplyError
from llama_vision.core.events import Finished, ToolCallDelta
from llama_vision.core.messages import ToolCall
from llama_vision.dialects.chat_completions import tool_call_assembler
from llama_vision.dialects.chat_completions.wire import MAX_TOOL_CALLS
from tests.dialects.replies import DONE, chunk, events_of, fragment, reply_to, streamed_calls, whole

PARIS = ToolCall("call_a", "weather", '{"city":"Paris"}')
ROME = ToolCall("call_b", "weather", '{"city":"Rome"}')


def wire_call(arguments, call_id="call_a", name="weather", **fields):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}, **fields}


@pytest.mark.parametrize("message", [{"tool_calls": []}, {"tool_calls": None}, {}], ids=repr)
@pytest.mark.parametrize("wrap", [whole, chunk])
def test_an_empty_a_null_and_no_list_mean_no_calls(wrap, message):
    reply = reply_to(wrap({"content": "Hi", **message}, finish_reason="stop"))
    assert (reply.tool_calls, reply.finish_reason) == ((), "stop")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"city":"Paris"}', '{"city":"Paris"}'),
        ({"city": "Zürich", "days": 2}, '{"city": "Zürich", "days": 2}'),
        ({}, "{}"),
        ("", "{}"),
        (None, "{}"),
        ("null", "{}"),
        (" null ", "{}"),
        ("None", "{}"),
        ('""', "{}"),
        ('"null"', "{}"),
    ],
    ids=repr,
)
def test_arguments_as_text_as_an_object_or_missing(arguments, text):
    call = wire_call(arguments)
    expected = (ToolCall("call_a", "weather", text),)
    assert reply_to(whole({"tool_calls": [call]})).tool_calls == expected
    assert streamed_calls([call | {"index": 0}]) == expected


def test_white_space_for_arguments_means_none():
    assert reply_to(whole({"tool_calls": [wire_call(" ")]})).tool_calls[0].parsed() == {}
    assert (
        streamed_calls([fragment(call_id="a", name="now", index=0)], [fragment(" ", index=0)])[0].parsed()
        == {}
    )


@pytest.mark.parametrize("content", [None, "", "Let me see."])
def test_words_may_stand_beside_calls(content):
    reply = reply_to(
        whole({"content": content, "tool_calls": [wire_call(PARIS.arguments)]}, finish_reason="tool_calls")
    )
    assert (reply.text, reply.tool_calls, reply.finish_reason) == (content or "", (PARIS,), "tool_calls")


@pytest.mark.parametrize("payloads", [[whole({"tool_calls": [wire_call("{}")]}, finish_reason=None)],
                                      [chunk({"tool_calls": [wire_call("{}")]}), DONE]])  # fmt: skip
def test_calls_without_a_finish_reason_are_the_reason(payloads):
    assert events_of(*payloads)[-1] == Finished("tool_calls")


def test_the_providers_finish_reason_stands_beside_calls_too():
    assert reply_to(whole({"tool_calls": [wire_call("{}")]}, finish_reason="stop")).finish_reason == "stop"


def test_several_calls_in_a_whole_body_keep_their_order():
    calls = [wire_call(PARIS.arguments, "call_a"), wire_call(ROME.arguments, "call_b")]
    assert reply_to(whole({"tool_calls": calls})).tool_calls == (PARIS, ROME)


@pytest.mark.parametrize("ids", [(None, None), ("", ""), ("same", "same"), ("same", None)])
@pytest.mark.parametrize(
    "read",
    [
        lambda calls: reply_to(whole({"tool_calls": calls})).tool_calls,
        streamed_calls,
        lambda calls: streamed_calls(*([call] for call in calls)),
    ],
    ids=["whole", "one chunk", "a chunk each"],
)
@pytest.mark.parametrize("indexed", [True, False])
def test_every_call_has_an_id_of_its_own(read, ids, indexed):
    calls = [wire_call(ROME.arguments, call_id, f"tool_{n}") for n, call_id in enumerate(ids)]
    if indexed:
        calls = [call | {"index": n} for n, call in enumerate(calls)]
    elif ids == ("same", "same"):
        calls[1]["id"] = None  # the same id without an index can only mean the same call
    first, second = read(calls)
    assert (first.name, second.name) == ("tool_0", "tool_1")
    assert first.arguments == second.arguments == ROME.arguments
    assert first.id
    assert second.id
    assert first.id != second.id
    assert first.id == (ids[0] or first.id)


def test_made_up_ids_differ_between_replies():
    body = whole({"tool_calls": [wire_call("{}", None)]})
    assert reply_to(body).tool_calls[0].id != reply_to(body).tool_calls[0].id


@pytest.mark.parametrize("call_id", [7, 7.5])
def test_a_number_as_an_id_is_taken_as_a_word(call_id):
    assert reply_to(whole({"tool_calls": [wire_call("{}", call_id)]})).tool_calls[0].id == str(call_id)


@pytest.mark.parametrize(
    "call", [{"id": "call_a"}, {"id": "call_a", "function": None}, {"function": {"name": ""}}, {}], ids=str
)
def test_what_has_neither_name_nor_arguments_is_no_call(call):
    for wrap in (whole, chunk):
        reply = reply_to(wrap({"content": "Hi", "tool_calls": [call]}, finish_reason="stop"))
        assert (reply.text, reply.tool_calls) == ("Hi", ())


@pytest.mark.parametrize("reason", [None, "stop", "tool_calls"])
def test_a_whole_reply_of_no_call_alone_is_empty(reason):
    with pytest.raises(MalformedReplyError, match="neither text nor tool calls"):
        reply_to(whole({"content": None, "tool_calls": [{"id": "call_a"}]}, finish_reason=reason))


FIRST = [fragment(call_id="call_a", name="weather", arguments="", index=0)]
MORE = [[fragment('{"city":', index=0)], [fragment('"Paris"}', index=0)]]


def test_fragments_are_put_together():
    assert streamed_calls(FIRST, *MORE) == (PARIS,)


def test_only_the_first_fragment_of_a_call_names_it():
    deltas = [event for event in events_of(*(chunk({"tool_calls": calls}) for calls in [FIRST, *MORE]), DONE)
              if isinstance(event, ToolCallDelta)]  # fmt: skip
    assert deltas == [
        ToolCallDelta(0, "call_a", "weather", ""),
        ToolCallDelta(0, None, None, '{"city":'),
        ToolCallDelta(0, None, None, '"Paris"}'),
    ]


@pytest.mark.parametrize(
    "sentinel",
    [
        {"id": None, "type": None, "index": 0, "function": {"name": None, "arguments": ""}},
        {"id": None, "type": None, "index": 1, "function": {"name": None, "arguments": ""}},
        {"index": 0, "id": "call_a", "function": {"name": "weather", "arguments": ""}},
        {"index": 0, "id": "call_a"},
        {"index": 0, "function": None},
        {"index": 0},
        {},
    ],
    ids=repr,
)
def test_a_fragment_that_says_nothing_is_passed_over(sentinel):
    assert streamed_calls(FIRST, [sentinel], *MORE, [sentinel]) == (PARIS,)


def named(call, **fields):
    return fragment("", call_id=call.id, name=call.name, **fields)


STREAMS = {
    "numbered": [
        [named(PARIS, index=0)],
        [fragment('{"city":', index=0)],
        [fragment('"Paris"}', index=0)],
        [named(ROME, index=1)],
        [fragment(ROME.arguments, index=1)],
    ],
    "numbered, mixed": [
        [named(PARIS, index=0), named(ROME, index=1)],
        [fragment('{"city":', index=1), fragment('{"city":', index=0)],
        [fragment('"Paris"}', index=0), fragment('"Rome"}', index=1)],
    ],
    "numbered from 1, backwards, with a gap": [
        [named(PARIS, index=5)],
        [named(ROME, index=1)],
        [fragment(PARIS.arguments, index=5)],
        [fragment(ROME.arguments, index=1)],
    ],
    "always 0, a new id begins a call": [
        [named(PARIS, index=0)],
        [fragment(PARIS.arguments, index=0)],
        [named(ROME, index=0)],
        [fragment(ROME.arguments, index=0)],
    ],
    "always 0, whole calls": [
        [fragment(call.arguments, call_id=call.id, name=call.name, index=0)] for call in (PARIS, ROME)
    ],
    "always 0, ids on every fragment, mixed": [
        [named(PARIS, index=0)],
        [named(ROME, index=0)],
        [fragment(PARIS.arguments, call_id=PARIS.id, index=0)],
        [fragment(ROME.arguments, call_id=ROME.id, index=0)],
    ],
    "not numbered, ids first": [
        [named(PARIS)],
        [fragment('{"city":')],
        [fragment('"Paris"}')],
        [named(ROME)],
        [fragment(ROME.arguments)],
    ],
    "not numbered, ids and names on every fragment": [
        [fragment('{"city":', call_id=PARIS.id, name=PARIS.name)],
        [fragment('"Paris"}', call_id=PARIS.id, name=PARIS.name)],
        [fragment(ROME.arguments, call_id=ROME.id, name=ROME.name)],
    ],
    "not numbered, by place in the chunk": [
        [named(PARIS), named(ROME)],
        [fragment('{"city":'), fragment('{"city":')],
        [fragment('"Paris"}'), fragment('"Rome"}')],
    ],
    "all at once": [[fragment(call.arguments, call_id=call.id, name=call.name) for call in (PARIS, ROME)]],
    "numbered by a counter of its own, ids on every fragment": [
        [named(PARIS, index=0)],
        [fragment(PARIS.arguments, call_id=PARIS.id, index=1)],
        [named(ROME, index=2)],
        [fragment(ROME.arguments, call_id=ROME.id, index=3)],
    ],
}


@pytest.mark.parametrize("deltas", STREAMS.values(), ids=STREAMS.keys())
def test_two_calls_are_told_apart(deltas):
    assert streamed_calls(*deltas) == (PARIS, ROME)


def test_one_id_for_two_numbered_calls_mixed_neither():
    first, second = streamed_calls(
        [named(PARIS, index=0)],
        [fragment(call_id=PARIS.id, name="clock", index=1)],
        [fragment('{"city":"Paris"}', call_id=PARIS.id, index=0)],
        [fragment('{"zone":"CET"}', call_id=PARIS.id, index=1)],
    )
    assert first == PARIS
    assert (second.name, second.arguments) == ("clock", '{"zone":"CET"}')
    assert second.id not in (None, "", PARIS.id)


@pytest.mark.parametrize("fields", [{}, {"index": 0}])
def test_calls_without_ids_are_told_apart_by_their_names(fields):
    calls = streamed_calls(
        [fragment("{}", name="first")],
        [fragment('{"x":', name="second", **fields)],
        [fragment("1}", **fields)],
    )
    assert [(call.name, call.arguments) for call in calls] == [("first", "{}"), ("second", '{"x":1}')]


def test_more_fragments_than_calls_go_to_the_last_call():
    assert streamed_calls([named(PARIS)], [fragment('{"city":'), fragment('"Paris"}')]) == (PARIS,)


NAMELESS = {
    "whole": [whole({"content": "Hm", "tool_calls": [wire_call("{}", name="now"), wire_call(PARIS.arguments, name=None)]})],
    "whole, before another call": [whole({"content": "Hm", "tool_calls": [wire_call(PARIS.arguments, name=None), wire_call("", name="now")]})],
    "streamed": [chunk({"content": "Hm"}), *(chunk({"tool_calls": [fragment(piece)]}) for piece in ('{"city":', '"Paris"}'))],
    "streamed, behind another call": [
        chunk({"content": "Hm", "tool_calls": [fragment("{}", name="now", index=0)]}),
        chunk({"tool_calls": [fragment('{"city":', index=1)]}),
        chunk({"tool_calls": [fragment('"Paris"}', index=1)]}),
    ],
}  # fmt: skip


@pytest.mark.parametrize("payloads", NAMELESS.values(), ids=NAMELESS.keys())
def test_arguments_whose_name_never_comes_are_an_error(payloads):
    with pytest.raises(MalformedReplyError, match=r"without naming it.*Paris"):
        reply_to(*payloads, chunk(finish_reason="tool_calls"), DONE)


def test_arguments_before_the_name_of_a_second_call_are_its_own():
    assert streamed_calls(
        [fragment(PARIS.arguments, call_id=PARIS.id, name=PARIS.name, index=0)],
        [fragment('{"city":', index=1)],
        [fragment('"Rome"}', call_id=ROME.id, index=1)],
        [fragment("", name=ROME.name, index=1)],
    ) == (PARIS, ROME)


@pytest.mark.slow
@pytest.mark.parametrize("wrap", [whole, chunk])
def test_a_reply_has_a_largest_number_of_calls(wrap):
    calls = [{"index": n, "function": {"name": "f"}} for n in range(MAX_TOOL_CALLS + 1)]
    assert len(reply_to(wrap({"tool_calls": calls[1:]}, finish_reason="stop")).tool_calls) == MAX_TOOL_CALLS
    with pytest.raises(MalformedReplyError, match="can't be read"):
        reply_to(wrap({"tool_calls": calls}, finish_reason="stop"))


def test_a_stream_has_a_largest_number_of_calls(monkeypatch):
    monkeypatch.setattr(tool_call_assembler, "MAX_TOOL_CALLS", 10)
    deltas = [[{"index": n, "function": {"name": "f"}}] for n in range(11)]
    assert len(streamed_calls(*deltas[1:])) == 10
    with pytest.raises(MalformedReplyError, match="10 tool calls"):
        streamed_calls(*deltas)


def test_calls_without_arguments_get_the_empty_object_at_the_end():
    calls = streamed_calls(
        [fragment(call_id="a", name="now", index=0), fragment(call_id="b", name="weather", index=1)],
        [fragment("{}", index=1)],
        [fragment(call_id="c", name="today", index=2)],
    )
    assert [call.arguments for call in calls] == ["{}", "{}", "{}"]


def test_arguments_that_were_cut_off_stay_as_they_are():
    (call,) = streamed_calls(FIRST, MORE[0], finish_reason="length")
    assert call.arguments == '{"city":'
    with pytest.raises(ValueError):
        call.parsed()


def calls_in(*deltas):
    return [(call.name, call.arguments) for call in streamed_calls(*deltas)]


OSLO, LIMA = '{"city": "Oslo"}', '{"city": "Lima"}'
ONE_CALL = {
    "another id on the arguments": [
        [fragment("", call_id="a", name="f", index=0)],
        [fragment(OSLO, call_id="b", index=0)],
    ],
    "another id on every fragment": [
        [fragment("", call_id="a", name="f", index=0)],
        *([fragment(letter, call_id=f"x{n}", index=0)] for n, letter in enumerate(OSLO)),
    ],
    "another id and another index": [
        [fragment("", call_id="a", name="f", index=0)],
        [fragment(OSLO[:5], call_id="b", index=1)],
        [fragment(OSLO[5:], call_id="c", index=2)],
    ],
    "another id and no index": [
        [fragment("", call_id="a", name="f")],
        [fragment(OSLO, call_id="b")],
    ],
    "the id null": [
        [fragment("", call_id="a", name="f", index=0)],
        [fragment(OSLO[:5], call_id="null", index=0)],
        [fragment(OSLO[5:], call_id="None", index=0)],
    ],
    "an empty name": [
        [fragment("", call_id="a", name="f", index=0)],
        [fragment(OSLO, call_id="b", name="", index=0)],
    ],
    "the id before the name": [
        [fragment(call_id="a", index=0)],
        [fragment("", name="f", index=0)],
        [fragment(OSLO, index=0)],
    ],
    "the arguments before the name": [
        [fragment(OSLO[:5], call_id="a", index=0)],
        [fragment(OSLO[5:], name="f", index=0)],
    ],
    "the name on every fragment": [
        [fragment("", name="f", index=0)],
        [fragment(OSLO[:5], name="f", index=0)],
        [fragment(OSLO[5:], name="f", index=0)],
        [fragment("", name="f", index=0)],
    ],
}


@pytest.mark.parametrize("deltas", ONE_CALL.values(), ids=ONE_CALL.keys())
def test_a_fragment_without_a_name_of_its_own_begins_no_call(deltas):
    (call,) = streamed_calls(*deltas)
    assert (call.name, call.arguments) == ("f", OSLO)
    assert call.id == "a" or call.id.startswith("call_")


@pytest.mark.parametrize("last", [OSLO, ""])
@pytest.mark.parametrize("pieces", [("get_", "weather"), ("g", "et_w", "eather"), ("get_", "get_weather")])
def test_a_name_in_pieces_is_joined(pieces, last):
    deltas = [[fragment("", name=piece, index=0)] for piece in pieces]
    assert calls_in(*deltas, [fragment(last, index=0)]) == [("get_weather", last or "{}")]


def test_a_name_that_ends_on_the_fragment_that_begins_the_arguments_is_joined():
    assert calls_in([fragment("", name="get_", call_id="a", index=0)],
                    [fragment(OSLO, name="weather", call_id="a", index=0)]) == [("get_weather", OSLO)]  # fmt: skip


def in_pieces(name, arguments, **fields):
    return [[fragment("", name=name, **fields)], [fragment(arguments[:4], **fields)], [fragment(arguments[4:], **fields)]]  # fmt: skip


@pytest.mark.parametrize("fields", [{"index": 0}, {"index": 0, "call_id": "null"}], ids=str)
@pytest.mark.parametrize("second", ["f", "g"])
@pytest.mark.parametrize("cut", [False, True])
def test_several_calls_at_index_0_without_ids_are_several(second, cut, fields):
    calls = [("f", OSLO), (second, LIMA)]
    whole_calls = [[fragment(arguments, name=name, **fields)] for name, arguments in calls]
    pieces = [delta for name, arguments in calls for delta in in_pieces(name, arguments, **fields)]
    assert calls_in(*(pieces if cut else whole_calls)) == calls


def test_calls_with_one_id_at_one_index_are_told_apart_by_their_names():
    calls = streamed_calls(*([fragment("{}", name=name, call_id="a", index=0)] for name in "fg"))
    assert [(call.name, call.arguments) for call in calls] == [("f", "{}"), ("g", "{}")]
    assert len({call.id for call in calls}) == 2


@pytest.mark.parametrize("written", ["null", "None", '""', '"null"'])
def test_no_arguments_in_pieces_are_an_empty_object(written):
    assert calls_in(FIRST, *([fragment(letter, index=0)] for letter in written)) == [("weather", "{}")]


@pytest.mark.parametrize("written", ["nothing", "nul", "None!", "[]"])
def test_other_arguments_that_are_no_object_stay_as_written(written):
    assert calls_in(FIRST, *([fragment(letter, index=0)] for letter in written)) == [("weather", written)]


def test_an_id_that_neither_name_nor_arguments_follow_is_no_call():
    assert streamed_calls([{"index": 0, "id": "call_a"}]) == ()


@pytest.mark.parametrize("fields", [{"index": 0}, {}], ids=str)
def test_a_call_that_was_cut_off_before_its_arguments_is_not_one_without_arguments(fields):
    first, second = streamed_calls(
        [fragment(call_id="a", name="now", **fields)],
        [fragment(call_id="b", name="weather", **(fields and {"index": 1}))],
        finish_reason="length",
    )
    assert (first.arguments, second.arguments) == ("{}", "")
