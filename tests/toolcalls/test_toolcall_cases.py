"""Every example of the collection, however its text is cut into pieces."""

import json
import random
import re
from dataclasses import dataclass

import pytest

from llama_vision.core.events import TextDelta, ToolCallDelta
from llama_vision.toolcalls import ToolCallParser, parse_tool_calls
from tests.toolcalls.cases import CASES
from tests.toolcalls.cases_record import PARIS, TOOLS, Case

MADE_ID = re.compile(r"call_[0-9a-f]{24}")
WITHOUT_STOP_TOKENS = re.compile(
    r"(.*?)(?:(?:<\|eot_id\|>|<\|eom_id\|>|<\|end_of_text\|>|</s>)\s*)*", re.DOTALL
)
BY_ID = {case.id: case for case in CASES}


def pieces_of(case, cut):
    """Cut a text: whole, into pieces of a length, or at random places."""
    if cut == "whole":
        return [case.text]
    if isinstance(cut, int):
        return [case.text[start : start + cut] for start in range(0, len(case.text), cut)]
    chance = random.Random(f"{cut} {case.id}")
    places = sorted(chance.choices(range(len(case.text) + 1), k=min(len(case.text), chance.randint(1, 12))))
    return [case.text[start:end] for start, end in zip([0, *places], [*places, len(case.text)], strict=True)]


CUTS = ["whole", 1, 3, "seed 1", "seed 2", "seed 3", "seed 4", "seed 5"]


@dataclass(frozen=True)
class Heard:
    """What the events of a parser add up to; calls are id, name and arguments as they were written."""

    text: str
    calls: list[tuple[str, str, str]]
    unfinished: list[str]


def heard(case, cut):
    """Feed a text in pieces, and look at the form of every event."""
    parser = ToolCallParser(TOOLS[case.tools])
    events = [event for piece in pieces_of(case, cut) for event in parser.feed(piece)]
    events += parser.close()
    text, calls = "", []
    for event in events:
        if isinstance(event, TextDelta):
            text += event.text
            continue
        assert isinstance(event, ToolCallDelta)
        if event.index == len(calls):
            assert event.id
            assert event.name
            calls.append([event.id, event.name, ""])
        else:
            assert event.index < len(calls)
            assert (event.id, event.name) == (None, None)
        calls[event.index][2] += event.arguments
    assert parser.unfinished <= set(range(len(calls)))
    return Heard(
        text,
        [tuple(call) for index, call in enumerate(calls) if index not in parser.unfinished],
        [arguments for index, (_, _, arguments) in enumerate(calls) if index in parser.unfinished],
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_whole_text(case):
    parsed = parse_tool_calls(case.text, TOOLS[case.tools])
    assert parsed.content == case.content
    assert [(call.name, json.loads(call.arguments)) for call in parsed.tool_calls] == list(case.calls)
    assert_ids(case, [call.id for call in parsed.tool_calls])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_text_in_pieces(case):
    parsed = parse_tool_calls(case.text, TOOLS[case.tools])
    for cut in CUTS:
        told = heard(case, cut)
        assert told.text == (case.content or ""), cut
        assert [(name, json.loads(arguments)) for _, name, arguments in told.calls] == list(case.calls), cut
        assert_ids(case, [call_id for call_id, _, _ in told.calls])
        assert not [fragment for fragment in told.unfinished if is_json(fragment)], cut
        # To the letter the same as of the whole text.
        assert told.text == (parsed.content or ""), cut
        assert [arguments for *_, arguments in told.calls] == [call.arguments for call in parsed.tool_calls]


def is_json(text):
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def assert_ids(case, ids):
    given = case.ids or (None,) * len(case.calls)
    assert len(set(ids)) == len(ids) == len(given)
    for call_id, expected in zip(ids, given, strict=True):
        assert call_id == expected if expected else MADE_ID.fullmatch(call_id)


def test_the_collection_is_large_and_every_case_has_a_source():
    assert len(CASES) >= 150
    assert len(BY_ID) == len(CASES)
    assert all(case.source.strip() for case in CASES)
    assert len({case.text for case in CASES if case.tools == "usual"}) > 150


def test_no_id_is_made_twice_among_all_calls():
    ids = [
        call.id
        for case in CASES
        for call in parse_tool_calls(case.text, TOOLS[case.tools]).tool_calls
        if not case.ids
    ]
    assert len(set(ids)) == len(ids) > 100


FORMS = {
    "openai": lambda tool: {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
    },
    "inner": lambda tool: {"name": tool.name, "parameters": tool.parameters},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["json", "code-for-the-only-property", "unoffered", "pythonic-three"])
def test_tools_may_be_dicts(name, form):
    case = BY_ID[name]
    parsed = parse_tool_calls(case.text, [FORMS[form](tool) for tool in TOOLS[case.tools]])
    assert parsed.content == case.content
    assert [(call.name, json.loads(call.arguments)) for call in parsed.tool_calls] == list(case.calls)


def test_arguments_keep_the_characters_that_the_model_wrote():
    text = '{"name": "get_weather", "parameters": { "days":1e1 ,"city":"\\u0050aris 🌦️\\/" }}'
    (call,) = parse_tool_calls(text, TOOLS["weather"]).tool_calls
    assert call.arguments == '{ "days":1e1 ,"city":"\\u0050aris 🌦️\\/" }'


BITS = [
    *(
        "```",
        "```json\n",
        "\n",
        "; ",
        ", ",
        " ",
        "[",
        "]",
        "{",
        "}",
        '"',
        "'",
        "\\",
        "text",
        ".call(",
        "get_time",
    ),
    *("<|python_tag|>", "<function=get_time>", "</function>", "</s>", "<|eot_id|>", "[get_time()]", PARIS),
]


def mixture(chance):
    """Put together a text of cases, whole, cut off or disturbed, and of single bits."""
    text = ""
    for _ in range(chance.randint(1, 4)):
        part = chance.choice(
            [case.text for case in CASES if len(case.text) < 300] if chance.random() < 0.5 else BITS
        )
        if chance.random() < 0.3:
            part = part[: chance.randint(0, len(part))]
        if chance.random() < 0.2:
            place = chance.randint(0, len(part))
            part = part[:place] + chance.choice(BITS) + part[place + chance.randint(0, 2) :]
        text += part
    return text


@pytest.mark.parametrize("seed", range(20))
def test_any_mixture_is_read_alike_however_it_is_cut(seed):
    chance = random.Random(seed)
    for number in range(20):
        case = Case(
            f"mixture-{seed}-{number}",
            mixture(chance),
            "made up",
            tools=chance.choice(["usual", "code", "greetings"]),
        )
        parsed = parse_tool_calls(case.text, TOOLS[case.tools])
        for cut in CUTS:
            told = heard(case, cut)
            assert told.text == (parsed.content or ""), (case.text, cut)
            assert [call[1:] for call in told.calls] == [
                (call.name, call.arguments) for call in parsed.tool_calls
            ]
            assert all(isinstance(json.loads(arguments), dict) for *_, arguments in told.calls), (
                case.text,
                cut,
            )
        if not parsed.tool_calls:
            assert WITHOUT_STOP_TOKENS.fullmatch(case.text)[1] == (parsed.content or "")
