"""The state machine of structured output: replies in; retries, partial values, a value or an error out."""

import json
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.v1 import BaseModel as BaseModelV1

from llama_vision.core.errors import ConfigurationError, UnsupportedInputError
from llama_vision.core.messages import ToolCall
from llama_vision.core.reply import Reply
from llama_vision.providers import find_provider
from llama_vision.structured.method import StructuredMethodError, plan_structured_output
from llama_vision.structured.output_schema import OutputSchema, parse_json
from llama_vision.structured.session import StructuredOutputSession, append_to_last_text


class Place(BaseModel):
    """A place."""

    city: str = ""
    inner: dict[str, Any] = {}


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def session(schema=Place, method="prompt", provider="deepinfra"):
    record = find_provider(provider)
    model = record.models[0].id
    return StructuredOutputSession(
        plan_structured_output(OutputSchema.from_schema(schema), method, record, model)
    )


def test_a_retry_shows_each_output_and_what_was_wrong():
    state = session(SCHEMA)
    state.add_reply(Reply("Hm."))
    state.add_reply(Reply('{"town": 1}'))
    assert not state.done
    assert [(message.role, message.text.split(":")[0]) for message in state.retry_messages] == [
        ("assistant", "Hm."),
        ("user", "That answer does not fit"),
        ("assistant", '{"town"'),
        ("user", "That answer does not fit"),
    ]
    assert "city: is missing" in state.retry_messages[-1].text
    state.add_reply(Reply('{"city": "Rome"}'))
    assert (state.done, state.value, state.error) == (True, {"city": "Rome"}, None)


@pytest.mark.parametrize("method", ["prompt", "function_calling", "json_schema"])
def test_an_object_inside_of_truncated_output_is_not_the_output(method):
    state = session(method=method)
    text = '{"inner": {"city": "Rome"}, "city": "Par'
    calls = (ToolCall(None, "Place", text),) if method == "function_calling" else ()
    state.add_reply(Reply("" if calls else text, calls, finish_reason="length"))
    assert state.done
    assert state.value is None
    assert "raise max_tokens" in state.error


def test_arguments_that_were_not_begun_are_no_empty_object():
    for reason, value in (("length", None), ("tool_calls", Place())):
        state = session(method="function_calling")
        state.add_reply(Reply("", (ToolCall(None, "Place", " "),), finish_reason=reason))
        assert state.value == value


def test_the_call_of_the_schema_counts_and_no_other():
    calls = (ToolCall(None, "Other", '{"city": "Oslo"}'), ToolCall(None, "Place", '{"city": "Rome"}'))
    state = session(method="function_calling")
    state.add_reply(Reply("", calls))
    assert state.value == Place(city="Rome")
    state = session(method="function_calling")
    state.add_reply(Reply("", calls[:1]))
    assert "Place was not called" in state.error
    assert state.output == '{"city": "Oslo"}'


def test_a_long_output_is_quoted_shortened_and_kept_whole():
    state = session(method="json_schema")
    state.add_reply(Reply("No " * 1000))
    assert len(state.error) < 400
    assert state.output == "No " * 1000
    assert isinstance(state.cause, json.JSONDecodeError)


def test_partial_values_grow_and_none_comes_twice():
    state = session(SCHEMA)
    text = 'As in [1]: {"city": "Rome"}'
    partial = [state.partial(Reply(text[:end])) for end in range(len(text) + 1)]
    cities = [value.get("city") for value in partial if value is not None]
    assert cities == [None, "", "R", "Ro", "Rom", "Rome"]
    assert state.last_partial == {"city": "Rome"}
    assert state.partial(Reply('{"city": "Rome"}')) is None


def test_the_first_character_is_a_partial_value():
    assert session(SCHEMA).partial(Reply("{")) == {}
    assert session(SCHEMA).partial(Reply("")) is None


def test_a_next_reply_of_the_same_length_has_partial_values_too():
    state = session(SCHEMA)
    assert state.partial(Reply('{"city": "Rome"}')) == {"city": "Rome"}
    state.add_reply(Reply('{"town": "Rome"}'))
    assert state.partial(Reply('{"city": "Oslo"}')) == {"city": "Oslo"}


def test_partial_arguments_are_those_of_the_call():
    state = session(method="function_calling")
    assert state.partial(Reply("Let me see what the tool says about it.")) is None
    assert state.partial(Reply("Let me", (ToolCall(None, "Place", '{"city": "Ro'),))) == Place(city="Ro")


def test_partial_values_without_a_class_that_takes_them_are_left_out():
    class Strict(BaseModel):
        city: str

    class Loose(BaseModel):
        city: Any = None

    assert session(Strict).partial(Reply('{"ci')) is None
    assert OutputSchema.from_schema(Strict).parse_partial({}) is None
    assert OutputSchema(SCHEMA, Strict, Loose).parse_partial({}) == Loose()
    assert OutputSchema(SCHEMA, Strict, Loose).parse_partial({"city": "Rome"}) == Strict(city="Rome")


@pytest.mark.parametrize("text", ['{"n": NaN}', "[-Infinity]", "1e999", '{"a":', "", "[" * 100_000])
def test_what_is_not_json_is_refused(text):
    with pytest.raises(ValueError, match=r"not JSON|nested too deeply"):
        parse_json(text)


def test_a_class_of_pydantic_1_and_errors_of_many_fields():
    class Many(BaseModelV1):
        numbers: list[int]

    schema = OutputSchema(SCHEMA, Many)
    assert schema.validate({"numbers": [1]}) == Many(numbers=[1])
    with pytest.raises(ValueError, match=r"numbers\.9: value is not a valid integer$") as caught:
        schema.validate({"numbers": ["x"] * 50})
    assert len(str(caught.value).splitlines()) == 10


def test_values_nested_too_deeply_do_not_fit():
    schema = {"type": "object", "properties": {"a": {"$ref": "#"}}}
    value = {}
    for _ in range(5000):
        value = {"a": value}
    with pytest.raises(ValueError, match="nested too deeply"):
        OutputSchema.from_schema(schema).validate(value)


def test_what_is_no_schema_is_refused():
    with pytest.raises(ConfigurationError, match="not 'color'"):
        OutputSchema.from_schema("color")


@pytest.mark.parametrize(
    ("schema", "is_object"),
    [
        (SCHEMA, True),
        ({"properties": {}}, True),
        ({"type": "array"}, False),
        ({"anyOf": [SCHEMA]}, False),
        ({"$ref": "#/$defs/Tree"}, False),
        (None, False),
    ],
)
def test_only_an_object_can_be_the_arguments_of_a_tool(schema, is_object):
    assert OutputSchema.from_schema(schema).is_object is is_object
    if schema:
        assert session(schema, "auto").plan.method == ("function_calling" if is_object else "prompt")


def test_a_schema_in_openais_format_is_taken_out_of_it():
    spec = {"type": "json_schema", "json_schema": {"name": "Place", "schema": SCHEMA}}
    assert OutputSchema.from_schema(spec) == OutputSchema({**SCHEMA, "title": "Place"})
    assert OutputSchema.from_schema(spec["json_schema"]).name == "Place"
    assert OutputSchema.from_schema(SCHEMA).name == "answer"


def test_a_single_call_is_requested_where_that_can_be_said():
    for provider, said in (("openai-compatible", True), ("deepinfra", False), ("cloudflare", True)):
        options = session(method="function_calling", provider=provider).plan.options
        assert options.get("parallel_tool_calls") is (False if said else None), provider


@pytest.mark.parametrize("name", ["tools", "response_format"])
def test_options_that_the_plan_sets_are_refused(name):
    plan = session().plan
    with pytest.raises(UnsupportedInputError, match=name):
        plan.merge_options({name: None})
    assert plan.merge_options({"seed": 3}) == {"seed": 3}


def test_methods_that_conflict_with_other_arguments_are_refused():
    record = find_provider("deepinfra")
    for schema, method, strict in (
        (SCHEMA, "json_mode", True),
        (None, "auto", None),
        (SCHEMA, "tools", None),
    ):
        with pytest.raises(StructuredMethodError):
            plan_structured_output(OutputSchema.from_schema(schema), method, record, "x", strict=strict)


@pytest.mark.parametrize(
    ("blocks", "result"),
    [
        ([], ["I"]),
        (["a"], ["a\n\nI"]),
        (["a", 1], ["a\n\nI", 1]),
        ([1, "a", "b", 2], [1, "a", "b\n\nI", 2]),
        ([1, " "], [1, "I"]),
        ([1], [1, "I"]),
    ],
)
def test_instructions_are_appended_to_the_last_text(blocks, result):
    before = list(blocks)
    added = append_to_last_text(
        blocks, "I", text_of=lambda block: block if isinstance(block, str) else None, to_block=str
    )
    assert (added, blocks) == (result, before)
