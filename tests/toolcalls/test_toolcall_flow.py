"""What is given at once while a text with tool calls comes in, and what waits."""

import json
import re

import pytest

from llama_vision.core.events import TextDelta, ToolCallDelta
from llama_vision.toolcalls import ToolCallParser
from tests.toolcalls.cases_record import PARIS, TOOLS

MADE_ID = re.compile(r"call_[0-9a-f]{24}")


def said(events):
    """Add up the words among events that are all words."""
    assert all(isinstance(event, TextDelta) for event in events)
    return "".join(event.text for event in events)


@pytest.mark.parametrize(
    ("held", "refuting"),
    [
        ("", "Hello "),
        ('{"a', "nswer"),
        ("{", "a"),
        ("{", " }"),
        ('{"name', 's"'),
        ('{"name": "', "Bin"),
        ('{"name": "say_hello', "s"),
        ('{"name": "say_hello"', "}"),
        ('{"name": "say_hello", "parameters": ', "3"),
        ('{"type": "', "o"),
        ("[", "x"),
        ("[", "1"),
        ("[say_hello", "]"),
        ("[say_hello(", "'"),
        ("<", "b"),
        ("<function=", "x"),
        ("<|", "b"),
        ("\n ", "x"),
        ("``", " x"),
        ("``", "x"),
        ("```c\n", "int"),
    ],
)
def test_text_is_held_until_the_first_character_that_refutes_it(held, refuting):
    parser = ToolCallParser(TOOLS["greetings"])
    assert said(parser.feed(held)) == ""
    assert said(parser.feed(refuting)) == held + refuting
    assert said(parser.close()) == ""


def test_separators_are_held_until_prose_follows():
    parser = ToolCallParser(TOOLS["weather"])
    assert all(isinstance(event, ToolCallDelta) for event in parser.feed(PARIS))
    assert parser.feed(" ;\n") == []
    assert said(parser.feed("D")) == " ;\nD"
    assert said(parser.feed("one. ")) == "one. "


def test_a_stop_token_is_held_until_the_text_goes_on():
    parser = ToolCallParser(TOOLS["weather"])
    assert said(parser.feed("Bye<|eot")) == "Bye"
    assert parser.feed("_id|>") == []
    assert said(parser.feed("?")) == "<|eot_id|>?"


BEGUN = {
    "json": ('{"name": "get_weather", "parameters": {"city": "Par', "is", '"}', "}"),
    "tag": ('<|python_tag|>{"name": "get_weather", "parameters": {"city": "Par', "is", '"}', "}"),
    "function": ('<function=get_weather>{"city": "Par', "is", '"}', "</function>"),
}


@pytest.mark.parametrize("form", BEGUN)
def test_arguments_arrive_as_they_are_written_and_their_end_with_the_envelopes(form):
    begun, further, end, envelope_end = BEGUN[form]
    parser = ToolCallParser(TOOLS["weather"])
    first, *rest = parser.feed(begun)
    assert (first.index, first.name) == (0, "get_weather")
    assert MADE_ID.fullmatch(first.id)
    arguments = "".join(event.arguments for event in (first, *rest))
    assert arguments == '{"city": "Par'
    for piece, expected in ((further, "is"), (end, '"'), (envelope_end, "}")):
        assert "".join(event.arguments for event in parser.feed(piece)) == expected
    assert parser.close() == []
    assert parser.unfinished == frozenset()


def test_arguments_that_come_before_the_name_wait_for_it():
    parser = ToolCallParser(TOOLS["weather"])
    assert parser.feed('{"parameters": {"city": "Paris"}, "name": "get_wea') == []
    deltas = parser.feed('ther"}')
    assert [delta.name for delta in deltas if delta.name] == ["get_weather"]
    assert "".join(delta.arguments for delta in deltas) == '{"city": "Paris"}'


def test_a_pythonic_call_is_given_before_the_list_ends():
    parser = ToolCallParser(TOOLS["usual"])
    first, *rest = parser.feed("[get_weather(city='Paris'), get_")
    arguments = "".join(event.arguments for event in (first, *rest))
    assert (first.name, json.loads(arguments + "}")) == ("get_weather", {"city": "Paris"})
    following = parser.feed("time()]")
    assert "".join(event.arguments for event in following if event.index == 0) == "}"
    assert "".join(event.arguments for event in following if event.index == 1) == "{}"


@pytest.mark.parametrize(
    "text", ['{"name": "get_weather", "parameters": {}}', "<function=get_weather>{}</function>"]
)
def test_empty_arguments_are_sent(text):
    deltas = ToolCallParser(TOOLS["weather"]).feed(text)
    assert "".join(delta.arguments for delta in deltas) == "{}"


@pytest.mark.parametrize(
    ("text", "unfinished"),
    [(PARIS, frozenset()), (PARIS[:-1], {0}), (PARIS[:-9], {0}), (PARIS[:20], frozenset())],
)
def test_calls_that_were_given_and_never_ended_are_named(text, unfinished):
    parser = ToolCallParser(TOOLS["weather"])
    events = [*parser.feed(text), *parser.close()]
    assert parser.unfinished == unfinished
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == (
        "" if text == PARIS else text
    )


@pytest.mark.parametrize(
    "refuted", ['{"answer": ', '{"name": "Bingo", "age": ', "[launch(", "<function=nope>{", "<|python_tag|>x"]
)
def test_what_follows_in_a_refuted_structure_is_given_at_once(refuted):
    parser = ToolCallParser(TOOLS["weather"])
    assert said(parser.feed(refuted)) == refuted
    for piece in ("4", "2, ", '{"name": ', PARIS):
        assert said(parser.feed(piece)) == piece


def test_code_is_given_as_it_is_written():
    parser = ToolCallParser(TOOLS["ipython"])
    events = parser.feed("<|python_tag|>print('")
    assert [event.name for event in events if event.name] == ["ipython"]
    assert "".join(event.arguments for event in events) == '{"code": "print(\''
    assert "".join(event.arguments for event in parser.feed('say "hi"\n')) == r"say \"hi\"\n"
    assert "".join(event.arguments for event in parser.close()) == '"}'
