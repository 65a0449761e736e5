"""What events add up to."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_vision.core.events import Finished, Started, TextDelta, ToolCallDelta, UsageReport
from llama_vision.core.messages import ToolCall
from llama_vision.core.reply import Reply, ReplyBuilder
from llama_vision.core.usage import Usage

WHOLE = [
    Started("llama", id="chatcmpl-1", request_id="req-1"),
    TextDelta("Hel"),
    TextDelta("lo"),
    ToolCallDelta(0, "call_a", "weather", '{"city":'),
    ToolCallDelta(0, None, None, '"Paris"}'),
    UsageReport(Usage(input_tokens=3)),
    UsageReport(Usage(input_tokens=3, output_tokens=9)),
    Finished("tool_calls"),
]


def test_all_events_together_make_the_reply():
    assert Reply.from_events(WHOLE) == Reply(
        text="Hello",
        tool_calls=(ToolCall("call_a", "weather", '{"city":"Paris"}'),),
        usage=Usage(input_tokens=3, output_tokens=9),
        finish_reason="tool_calls",
        model="llama",
        id="chatcmpl-1",
        request_id="req-1",
    )


def test_no_events_make_an_empty_reply_without_a_reason():
    assert Reply.from_events([]) == Reply()
    assert Reply().finish_reason is None


@pytest.mark.parametrize("length", range(len(WHOLE) + 1))
def test_a_reply_can_be_asked_for_after_every_event(length):
    builder = ReplyBuilder()
    for event in WHOLE[:length]:
        builder.add(event)
        assert builder.reply() == builder.reply()
    assert builder.reply() == Reply.from_events(iter(WHOLE[:length]))


def test_a_reply_given_out_does_not_change_with_later_events():
    builder = ReplyBuilder()
    builder.add(TextDelta("one"))
    early = builder.reply()
    builder.add(TextDelta(" two"))
    assert (early.text, builder.text) == ("one", "one two")


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(), st.booleans())))
def test_text_is_all_pieces_in_order_whenever_it_is_looked_at(pieces):
    builder, expected = ReplyBuilder(), ""
    for piece, look in pieces:
        builder.add(TextDelta(piece))
        expected += piece
        if look:
            assert builder.text == expected
    assert builder.reply().text == expected


@pytest.mark.parametrize("length", [255, 256, 257, 258, 1000])
def test_a_long_text_loses_nothing(length):
    pieces = [f"{number} " for number in range(length)]
    assert Reply.from_events(map(TextDelta, pieces)).text == "".join(pieces)


def test_calls_are_told_apart_and_ordered_by_index():
    reply = Reply.from_events(
        [
            ToolCallDelta(1, "b", "second", "{"),
            ToolCallDelta(0, "a", "first", "["),
            ToolCallDelta(1, None, None, "}"),
            ToolCallDelta(0, None, None, "]"),
        ]
    )
    assert reply.tool_calls == (ToolCall("a", "first", "[]"), ToolCall("b", "second", "{}"))


def test_the_first_id_and_name_of_a_call_stay():
    events = [ToolCallDelta(0, "a", "first", ""), ToolCallDelta(0, "b", "other", "{}")]
    assert Reply.from_events(events).tool_calls == (ToolCall("a", "first", "{}"),)


def test_an_id_and_a_name_that_come_late_are_taken():
    events = [ToolCallDelta(0, None, None, "{"), ToolCallDelta(0, "a", "late", "}")]
    assert Reply.from_events(events).tool_calls == (ToolCall("a", "late", "{}"),)


def test_a_call_whose_name_never_came_has_an_empty_one():
    events = [ToolCallDelta(0, None, None, "{"), ToolCallDelta(0, None, None, "}")]
    assert Reply.from_events(events).tool_calls == (ToolCall(None, "", "{}"),)


def test_a_retracted_call_is_none_and_one_that_never_came_does_no_harm():
    events = [
        ToolCallDelta(0, "a", "f", "{}"),
        ToolCallDelta(1, "b", "g", "{"),
        Finished("stop", frozenset({1, 2})),
    ]
    assert Reply.from_events(events).tool_calls == (ToolCall("a", "f", "{}"),)
