"""Calls in the words of a reply, beside those that the provider reports."""

import json

import pytest

from llama_vision.core.events import Finished, Started, TextDelta, ToolCallDelta, UsageReport
from llama_vision.core.reply import Reply
from llama_vision.core.usage import Usage
from llama_vision.toolcalls.event_filter import TextToolCallExtractor
from tests.toolcalls.cases_record import PARIS, ROME, TIME, TOOLS

STARTED, USED = Started("m", id="1"), UsageReport(Usage(input_tokens=3, output_tokens=5))
STOPPED, CUT = Finished("stop"), Finished("length")
IN_OSLO = (
    ToolCallDelta(0, "call_oslo", "get_weather", '{"city": '),
    ToolCallDelta(0, None, None, '"Oslo"}'),
)


def reported(index, name, arguments):
    """Give a call as a provider reports it, whole."""
    return ToolCallDelta(index, f"call_{index}", name, arguments)


def read(*events, tools="usual"):
    """Read events one by one, as a stream brings them, and close it."""
    reader = TextToolCallExtractor(TOOLS[tools])
    return [*(given for event in events for given in reader.process([event])), *reader.close()]


def calls_in(events):
    """Add up calls, each with its index."""
    calls = {}
    for event in events:
        if isinstance(event, ToolCallDelta):
            if event.index not in calls:
                assert event.id
                assert event.name
                calls[event.index] = [event.name, ""]
            calls[event.index][1] += event.arguments
    assert list(calls) == list(range(len(calls)))
    return [(name, arguments) for name, arguments in calls.values()]


def words_in(events):
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def test_words_become_calls():
    events = read(
        STARTED, TextDelta(PARIS[:20]), TextDelta(PARIS[20:]), TextDelta("; " + TIME), USED, STOPPED
    )
    assert calls_in(events) == [("get_weather", '{"city": "Paris"}'), ("get_time", "{}")]
    assert words_in(events) == ""
    assert (events[0], events[-2], events[-1]) == (STARTED, USED, Finished("tool_calls"))


def test_a_whole_reply_at_once_and_event_by_event_are_the_same():
    events = [STARTED, TextDelta(f"So: {PARIS}"), reported(0, "get_time", "{}"), USED, STOPPED]
    reader = TextToolCallExtractor(TOOLS["usual"])
    at_once = Reply.from_events([*reader.process(events), *reader.close()])
    one_by_one = Reply.from_events(read(*events))
    assert at_once.text == one_by_one.text == "So: "
    assert [(call.name, call.arguments) for call in at_once.tool_calls] == [
        (call.name, call.arguments) for call in one_by_one.tool_calls
    ]
    assert len(at_once.tool_calls) == 2
    assert at_once.finish_reason == one_by_one.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    "events",
    [
        (),
        (STARTED, STOPPED),
        (STARTED, TextDelta("Hi "), USED, TextDelta("there"), USED, STOPPED),
        (STARTED, TextDelta("Let me look. "), *IN_OSLO, USED, Finished("tool_calls")),
        (STARTED, *IN_OSLO, ToolCallDelta(1, "b", "get_time", "{}"), STOPPED, USED),
        (STARTED, TextDelta("Once upon"), CUT),
        (STARTED, TextDelta("No."), Finished("content_filter")),
    ],
    ids=["nothing", "empty", "words", "words-and-reported", "reported", "length", "other-reason"],
)
def test_what_has_no_calls_in_its_words_passes_as_it_is(events):
    assert read(*events) == list(events)


def test_events_keep_their_order():
    events = read(STARTED, TextDelta("a "), USED, TextDelta(f"b {TIME}"), USED, TextDelta(" c"), STOPPED)
    assert [type(event) for event in events] == [
        *(Started, TextDelta, UsageReport, TextDelta, ToolCallDelta, UsageReport, TextDelta, Finished)
    ]
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["a ", "b ", " c"]


def test_words_held_back_come_before_a_reported_call():
    events = read(STARTED, TextDelta('{"name": "get_'), *IN_OSLO, STOPPED)
    assert events == [STARTED, TextDelta('{"name": "get_'), *IN_OSLO, STOPPED]


def test_a_reported_call_that_stood_in_the_words_is_taken_once():
    events = read(TextDelta(PARIS), reported(0, "get_weather", '{ "city":"Paris" }'), STOPPED)
    assert calls_in(events) == [("get_weather", '{"city": "Paris"}')]
    assert events[-1] == Finished("tool_calls")


def test_reported_calls_that_are_new_follow_those_in_the_words():
    events = read(
        TextDelta(f"{PARIS}{ROME}"),
        reported(0, "get_weather", '{"city": "Rome"}'),
        ToolCallDelta(1, "b", "get_weather", '{"city": '),
        ToolCallDelta(2, "c", "get_time", "{}"),
        ToolCallDelta(1, None, None, '"Oslo"}'),
        USED,
        Finished("tool_calls"),
    )
    assert calls_in(events) == [
        ("get_weather", '{"city": "Paris"}'),
        ("get_weather", '{"city": "Rome"}'),
        ("get_weather", '{"city": "Oslo"}'),
        ("get_time", "{}"),
    ]
    assert [event.id for event in events if isinstance(event, ToolCallDelta)][-3:] == ["b", "c", None]
    assert events[-1] == Finished("tool_calls")


def test_a_reported_call_is_compared_by_the_values_of_its_arguments():
    text = '{"name": "get_weather", "parameters": {"city": ["Oslo", {"n": 1}]}}'
    same = reported(0, "get_weather", '{"city":["Oslo",{"n":1.0}]}')
    other = reported(1, "get_weather", '{"city":["Oslo",{"n":2}]}')
    calls = calls_in(read(STARTED, TextDelta(text), same, other, STOPPED))
    assert [json.loads(arguments)["city"][1]["n"] for _, arguments in calls] == [1, 2]


def test_reported_arguments_that_are_no_json_are_compared_as_text():
    broken = reported(0, "get_weather", '{"city": "Par')
    events = read(TextDelta(PARIS), broken, STOPPED)
    assert calls_in(events) == [("get_weather", '{"city": "Paris"}'), ("get_weather", '{"city": "Par')]


def test_a_reported_call_like_one_cut_off_in_the_words_is_given():
    events = read(TextDelta(PARIS[:-1]), reported(0, "get_weather", '{"city": "Paris"}'), STOPPED)
    calls = calls_in(events)
    assert words_in(events) == PARIS[:-1]
    assert calls[1:] == [("get_weather", '{"city": "Paris"}')]
    with pytest.raises(ValueError, match="delimiter"):
        json.loads(calls[0][1])


def test_words_after_a_reported_call_stay_words():
    events = (*IN_OSLO, TextDelta(PARIS), TextDelta(ROME), Finished("tool_calls"))
    assert read(*events) == list(events)


def test_words_after_a_reported_call_stay_words_where_calls_came_before():
    events = read(TextDelta(PARIS), reported(0, "get_time", "{}"), TextDelta(ROME), STOPPED)
    assert words_in(events) == ROME
    assert calls_in(events) == [("get_weather", '{"city": "Paris"}'), ("get_time", "{}")]


@pytest.mark.parametrize(
    ("text", "reason", "expected"),
    [
        (PARIS, "stop", Finished("tool_calls")),
        (PARIS, "eos", Finished("tool_calls")),
        (PARIS, "tool_calls", Finished("tool_calls")),
        (PARIS, "length", CUT),
        (PARIS, "content_filter", Finished("content_filter")),
        (PARIS[:-1], "stop", Finished("stop", retracted_tool_calls=frozenset({0}))),
        (PARIS[:-1], "length", CUT),
        (PARIS + ROME[:-1], "stop", Finished("tool_calls", retracted_tool_calls=frozenset({1}))),
        ("Hi", "stop", STOPPED),
        ("Hi", "eos", Finished("eos")),
    ],
)
def test_the_reason_is_the_calls_where_one_has_ended(text, reason, expected):
    assert read(TextDelta(text), Finished(reason))[-1] == expected


def test_code_that_is_cut_off_is_no_call():
    code = "<|python_tag|>print(1"
    events = read(TextDelta(code), CUT, tools="code")
    assert words_in(events) == code
    assert events[-1] == CUT
    with pytest.raises(ValueError, match="Unterminated"):
        json.loads(calls_in(events)[0][1])
    ended = read(TextDelta(code), STOPPED, tools="code")
    assert words_in(ended) == ""
    assert calls_in(ended) == [("code_interpreter", '{"code": "print(1"}')]
    assert ended[-1] == Finished("tool_calls")


@pytest.mark.parametrize(
    "held", ['{"name": "get_', "Hi <|py", PARIS[:-2], "<|python_tag|>print(1", "```json\n"]
)
def test_a_stream_that_breaks_off_gives_what_was_held(held):
    reader = TextToolCallExtractor(TOOLS["code"])
    events = [*reader.process([STARTED, TextDelta(held)]), *reader.close()]
    assert words_in(events) == held
    assert reader.close() == []


def test_a_stream_that_breaks_off_gives_the_reported_calls():
    events = read(
        TextDelta(PARIS), reported(0, "get_weather", '{"city": "Paris"}'), reported(1, "get_time", "{}")
    )
    assert calls_in(events) == [("get_weather", '{"city": "Paris"}'), ("get_time", "{}")]


def test_without_tools_words_stay_words():
    events = (STARTED, TextDelta(PARIS), TextDelta("</s>"), STOPPED)
    assert read(*events, tools="none") == list(events)


EXPLAINED = 'Write {"name": "get_weather", "parameters": {"city": <city>}} for it.'


def test_what_began_like_a_call_and_was_none_is_taken_back():
    events = read(STARTED, TextDelta(EXPLAINED), STOPPED)
    assert [delta.index for delta in events if isinstance(delta, ToolCallDelta)] == [0]
    assert events[-1] == Finished("stop", retracted_tool_calls=frozenset({0}))
    reply = Reply.from_events(events)
    assert (reply.text, reply.tool_calls, reply.finish_reason) == (EXPLAINED, (), "stop")


def test_what_was_taken_back_does_not_take_the_others_along():
    reply = Reply.from_events(read(STARTED, TextDelta(f"{EXPLAINED} {PARIS}"), STOPPED))
    assert reply.text == f"{EXPLAINED} "
    assert [(call.name, call.parsed()) for call in reply.tool_calls] == [("get_weather", {"city": "Paris"})]
    assert reply.finish_reason == "tool_calls"


def test_a_call_that_was_cut_off_is_not_taken_back():
    events = read(STARTED, TextDelta(PARIS[:-5]), CUT)
    assert events[-1] == CUT
    (call,) = Reply.from_events(events).tool_calls
    assert call.name == "get_weather"


def test_a_host_that_has_its_own_word_for_the_end_is_corrected_too():
    assert read(STARTED, TextDelta(PARIS), Finished("eos"))[-1] == Finished("tool_calls")
    assert read(STARTED, TextDelta(PARIS), Finished("content_filter"))[-1] == Finished("content_filter")
