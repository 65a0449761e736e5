"""What holds for any text with or without tool calls, and for any arguments in any envelope."""

import json
import re

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from llama_vision.core.events import TextDelta, ToolCallDelta
from llama_vision.core.request import Tool
from llama_vision.toolcalls import ToolCallParser, parse_tool_calls
from tests.toolcalls.cases import CASES
from tests.toolcalls.cases_record import PARIS, TIME, TOOLS

AT_THE_END = re.compile(r"(.*?)(?:(?:<\|eot_id\|>|<\|eom_id\|>|<\|end_of_text\|>|</s>)\s*)*", re.DOTALL)
CHARACTERS = "{}[]()\"'\\`<>|=:,; \n\t\x00\x1f\x85\u2028\ufeff\ud83d\ude00é🌦"
WITHOUT_SPACE = r"""
    ``` </s> <|eot_id|> <|eom_id|> <|end_of_text|> <| </ <|python_ <|python_tag|> </function>
    <function=get_time> <function=get_ <function=nope>{} <function=get_time>{}</function>
    name get_weather get_weather( get_time() [get_weather( [get_time()] city=' .call( say_hello
    say_hello_world 天気 look-up.v2 code_interpreter True null None -1.5e3 0x1F 1_000 {} []
    \u00e9 \ud83d \ude00 \x41 \101 \N{DASH} \\ {'a':1} "{\"a\":1}" "{ city="Paris" "get_weather"
"""
FRAGMENTS = [
    *CHARACTERS,
    *WITHOUT_SPACE.split(),
    *("```json\n", '"name": ', '"parameters": ', "'arguments': ", '"type": "function", ', '"function": '),
    *('"id": "a", ', '"description": ', "\r\n", "def f(x):\n    return x"),
    *('{"name": "get_weather", "parameters": {', '{"name": "nope", "parameters": {}}', PARIS, TIME),
]
ANY_CHARACTER = st.characters(exclude_categories=())
TEXTS = st.one_of(
    st.text(ANY_CHARACTER),
    st.lists(
        st.one_of(
            st.sampled_from(FRAGMENTS),
            st.text(ANY_CHARACTER, max_size=3),
            st.sampled_from([case.text for case in CASES if len(case.text) < 200]),
        ),
        max_size=12,
    ).map("".join),
)


def pieces_of(text, data):
    """Cut a text at any places, or after every character."""
    if data.draw(st.booleans(), "in single characters"):
        return list(text)
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8), "cuts"))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


def heard(pieces, tools):
    """Add up the events: the words, and name and arguments of the calls that ended and of those that did not."""
    parser = ToolCallParser(tools)
    events = [event for piece in pieces for event in parser.feed(piece)]
    events += parser.close()
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    calls = {}
    for event in events:
        if isinstance(event, ToolCallDelta):
            if event.index not in calls:
                assert event.index == len(calls)
                assert event.id
            calls.setdefault(event.index, [event.name, ""])[1] += event.arguments
    assert parser.unfinished <= set(calls)
    ended = [tuple(call) for index, call in calls.items() if index not in parser.unfinished]
    return text, ended, [calls[index][1] for index in parser.unfinished]


def is_json(text):
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@settings(deadline=None, max_examples=400)
@given(TEXTS, st.sampled_from(sorted(TOOLS)), st.data())
def test_any_text_is_read_alike_however_it_is_cut(text, tools, data):
    parsed = parse_tool_calls(text, TOOLS[tools])
    words, ended, unfinished = heard(pieces_of(text, data), TOOLS[tools])
    assert words == (parsed.content or "")
    assert ended == [(call.name, call.arguments) for call in parsed.tool_calls]
    assert all(isinstance(json.loads(arguments), dict) for _, arguments in ended)
    assert not [fragment for fragment in unfinished if is_json(fragment)]
    assert {name for name, _ in ended} <= {tool.name for tool in TOOLS[tools]}
    if not ended:
        assert words == (AT_THE_END.fullmatch(text)[1] if TOOLS[tools] else text)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(ANY_CHARACTER),
    st.sampled_from(FRAGMENTS),
)
KEYS = st.one_of(st.text(ANY_CHARACTER), st.sampled_from(FRAGMENTS))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=4)
KEYWORDS = st.dictionaries(
    st.from_regex(r"[^\W\d]\w{0,8}", fullmatch=True).filter(str.isidentifier), VALUES, max_size=4
)
WORDS = st.from_regex(r"\w[\w.+\-]{0,12}", fullmatch=True)
SPACE = st.text(" \t\r\n", max_size=3)


@st.composite
def dumpers(draw):
    """Ways to write JSON."""
    spaces = [draw(SPACE) for _ in range(4)]
    separators = f"{spaces[0]},{spaces[1]}", f"{spaces[2]}:{spaces[3]}"
    ascii_only, indent = draw(st.booleans()), draw(st.sampled_from([None, 0, 2, "\t"]))
    return lambda value: json.dumps(value, separators=separators, ensure_ascii=ascii_only, indent=indent)


def exactly(value):
    """Make two values equal only if their types are, and the order of their keys."""
    return json.dumps(value)


def without_halves(value):
    """Give a value as it can be sent on: halves of surrogate pairs joined, and a lone one as U+FFFD."""
    written = json.dumps(value, ensure_ascii=False)
    return json.loads(written.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def assert_calls(text, names, calls, content=None):
    parsed = parse_tool_calls(text, [Tool(name, "", {}) for name in names])
    assert parsed.content == content
    assert [(call.name, exactly(json.loads(call.arguments))) for call in parsed.tool_calls] == [
        (name, exactly(without_halves(arguments))) for name, arguments in calls
    ]


def several(names, arguments):
    """Calls of offered names."""
    calls = st.lists(st.tuples(st.integers(0), arguments), min_size=1, max_size=3)
    return st.tuples(st.lists(names, min_size=1, max_size=3, unique=True), calls).map(
        lambda drawn: (drawn[0], [(drawn[0][number % len(drawn[0])], given) for number, given in drawn[1]])
    )


@st.composite
def json_calls(draw, name, arguments):
    """A call as a JSON object, in one of its spellings."""
    dump = draw(dumpers())
    key = draw(st.sampled_from(["parameters", "arguments"]))
    value = draw(st.sampled_from([arguments, json.dumps(arguments), f" {dump(arguments)}\n"]))
    fields = draw(st.permutations([("name", name), (key, value)]))
    form = draw(st.sampled_from(["bare", "typed", "with id", "nested", "function as name", "and more"]))
    if form == "nested":
        return dump({"type": "function", "function": dict(fields)})
    if form == "function as name":
        fields = [("function" if field == "name" else field, given) for field, given in fields]
    more = {"typed": ("type", "function"), "with id": ("id", "7"), "and more": (draw(st.text()), arguments)}
    if form in more:
        field, given = more[form]
        assume(
            form != "and more"
            or field not in {"name", "function", "type", "id", "parameters", "arguments", "description"}
        )
        fields.insert(2 if form == "and more" else draw(st.integers(0, 2)), (field, given))
    return dump(dict(fields))


AROUND = [
    ("", "", None),
    ("```json\n", "\n```", None),
    ("```", "```", None),
    ("<|python_tag|>", "<|eom_id|>", None),
    ("So: ", "</s>", "So: "),
    (" \n", " ;\n<|eot_id|>\n", None),
]


@settings(deadline=None, max_examples=200)
@given(several(st.text(ANY_CHARACTER, min_size=1), OBJECTS), st.sampled_from(AROUND), st.data())
@pytest.mark.slow
def test_json_calls_come_back_as_they_were(offered, around, data):
    names, calls = offered
    written = [data.draw(json_calls(*call)) for call in calls]
    separator = data.draw(st.sampled_from(["", "\n", "; ", ", ", " <|python_tag|>", "<|eom_id|>"]))
    before, after, content = around
    assert_calls(f"{before}{separator.join(written)}{after}", names, calls, content)
    assert_calls(f"{before}[{', '.join(written)}]{after}", names, calls, content)


@settings(deadline=None, max_examples=100)
@given(several(WORDS, OBJECTS), st.sampled_from(AROUND), dumpers(), SPACE)
def test_function_tags_come_back_as_they_were(offered, around, dump, space):
    names, calls = offered
    before, after, content = around
    written = [f"<function={name}{space}>{space}{dump(given)}{space}</function>" for name, given in calls]
    assert_calls(f"{before}{space.join(written)}{after}", names, calls, content)


def as_tuples(value):
    """Turn lists into tuples, which Python's repr then writes."""
    if isinstance(value, list):
        return tuple(map(as_tuples, value))
    return {key: as_tuples(inner) for key, inner in value.items()} if isinstance(value, dict) else value


@settings(deadline=None, max_examples=200)
@given(
    several(WORDS, KEYWORDS),
    st.sampled_from(AROUND),
    SPACE,
    st.sampled_from(["repr", "tuples", "json"]),
    dumpers(),
)
def test_python_calls_come_back_as_they_were(offered, around, space, spelling, dump):
    names, calls = offered
    write = {"repr": repr, "tuples": lambda value: repr(as_tuples(value)), "json": dump}[spelling]
    written = [
        f"{name}{space}({f'{space},{space}'.join(f'{key}{space}={space}{write(value)}' for key, value in given.items())})"
        for name, given in calls
    ]
    before, after, content = around
    assert_calls(f"{before}[{space}{f'{space},{space}'.join(written)}{space}]{after}", names, calls, content)
    tagged = [call.replace(name, f"{name}.call", 1) for call, (name, _) in zip(written, calls, strict=True)]
    assert_calls(f"<|python_tag|>{'; '.join(tagged)}<|eom_id|>", names, calls)


@settings(deadline=None)
@given(st.one_of(st.text(ANY_CHARACTER), st.lists(st.sampled_from(FRAGMENTS)).map("".join)), st.data())
@example("</s> ", None)
def test_code_comes_back_as_it_was(code, data):
    text = f"<|python_tag|>x = {code}"
    words, calls, unfinished = heard(pieces_of(text, data) if data else [text], TOOLS["ipython"])
    ((name, arguments),) = calls
    assert (words, name, unfinished) == ("", "ipython", [])
    assert json.loads(arguments) == {"code": without_halves(AT_THE_END.fullmatch(f"x = {code}")[1])}
