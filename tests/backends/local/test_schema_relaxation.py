"""What llguidance can't enforce is left out of schemas whose replies are validated, and refused by name in others."""

import json
import random
import re
import uuid
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import (
    UUID1,
    UUID4,
    UUID7,
    Base64Bytes,
    Base64UrlBytes,
    BaseModel,
    Field,
    IPvAnyAddress,
    IPvAnyInterface,
    SecretBytes,
    SecretStr,
    create_model,
)

from llama_vision.backends.local.guided_decoding import unpack_bitmask
from llama_vision.backends.local.model_loader import load_model
from llama_vision.backends.local.schema_relaxation import relax_schema
from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.messages import Message, Text
from llama_vision.core.request import ChatRequest, ResponseFormat, Tool, ToolChoice

HELLO = (Message("user", (Text("Hi"),)),)


class Cat(BaseModel):
    """One of two."""

    kind: Literal["cat"]
    colors: set[int] = Field(max_length=2)


class Dog(BaseModel):
    """The other."""

    kind: Literal["dog"]
    tag: UUID4


class Tree(BaseModel):
    """It refers to itself."""

    id: UUID4
    parts: "list[Tree]" = Field(max_length=1)


TYPES: dict[str, Any] = {
    "UUID1": UUID1,
    "UUID4": UUID4,
    "UUID7": UUID7,
    "set": set[int],
    "frozenset": frozenset[str],
    "bytes": bytes,
    "Path": Path,
    "SecretStr": SecretStr,
    "SecretBytes": SecretBytes,
    "IPv4Address": IPv4Address,
    "IPvAnyAddress": IPvAnyAddress,
    "IPv4Interface": IPv4Interface,
    "IPv6Interface": IPv6Interface,
    "IPvAnyInterface": IPvAnyInterface,
    "Base64Bytes": Base64Bytes,
    "Base64UrlBytes": Base64UrlBytes,
    "dict[UUID, int]": dict[uuid.UUID, int],
    "dict[Literal, int]": dict[Literal["a", "b"], int],
    "a discriminated union": Annotated[Cat | Dog, Field(discriminator="kind")],
    "a recursive model": Tree,
    "a huge limit": Annotated[int, Field(ge=-(10**30), le=10**30)],
}
"""Of which whatever the grammar allows fits."""

HARD_TYPES: dict[str, Any] = {
    "IPv4Network": IPv4Network,
    "look-ahead": Annotated[str, Field(json_schema_extra={"pattern": "^(?!x)[a-z]{3}$"})],
    "an unknown format": Annotated[str, Field(json_schema_extra={"format": "tea"})],
}
"""Of which the grammar allows more than fits."""


@pytest.fixture(scope="module")
def model():
    return load_model("tiny")


def matcher_of(model, schema, strict=False):
    form = ResponseFormat("json_schema", schema=schema, strict=strict)
    return model.grammar_compiler.compile_request(ChatRequest("tiny", HELLO, response_format=form))


def drawn_reply(model, schema, seed):
    """Draw tokens that the grammar allows; after 25 of them those that close something, where there are any."""
    chance, matcher, token_ids = random.Random(seed), matcher_of(model, schema), []
    while not matcher.is_terminated and len(token_ids) < 500:
        allowed = np.flatnonzero(unpack_bitmask([matcher.token_bitmask()], 1024)[0]).tolist()
        if not (going_on := [token_id for token_id in allowed if token_id not in model.eos_token_ids]):
            break
        closing = [one for one in going_on if re.fullmatch(r'["\]}]+', model.tokenizer.decode([one]))]
        token_ids.append(chance.choice(closing if closing and len(token_ids) > 25 else going_on))
        matcher.accept_token(token_ids[-1])
    return model.tokenizer.decode(token_ids, skip_special_tokens=False)


def schema_of(kind):
    return create_model("Answer", value=(kind, ...)).model_json_schema()


@pytest.mark.parametrize("name", TYPES)
def test_what_the_grammar_allows_of_a_pydantic_type_fits_it(model, name):
    answer = create_model("Answer", value=(TYPES[name], ...))
    for seed in range(2):
        answer.model_validate_json(drawn_reply(model, answer.model_json_schema(), seed))


@pytest.mark.parametrize("name", HARD_TYPES)
def test_what_no_grammar_can_say_is_a_string(model, name):
    replies = [json.loads(drawn_reply(model, schema_of(HARD_TYPES[name]), seed)) for seed in range(2)]
    assert all(isinstance(reply["value"], str) for reply in replies)


@pytest.mark.parametrize(
    "name", [name for name in (*TYPES, *HARD_TYPES) if name not in ("IPv4Address", "a huge limit")]
)
@pytest.mark.parametrize("strict", [None, True])
def test_where_nobody_validates_the_reply_it_is_refused_by_name(model, name, strict):
    schema = schema_of((TYPES | HARD_TYPES)[name])
    with pytest.raises(
        UnsupportedInputError, match=r"schema of response_format: llguidance says .*strict=False"
    ):
        matcher_of(model, schema, strict)


def test_a_forced_tool_is_relaxed_where_it_says_so(model):
    parameters = schema_of(UUID4)
    for strict in (None, True):
        tool = Tool("f", "", parameters, strict=strict)
        with pytest.raises(UnsupportedInputError, match=r"parameters of the tool 'f'.*uuid4"):
            model.grammar_compiler.compile_request(
                ChatRequest("tiny", HELLO, (tool,), ToolChoice("required"))
            )
    relaxed = Tool("f", "", parameters, strict=False)
    request = ChatRequest("tiny", HELLO, (relaxed,), ToolChoice("required"))
    assert model.grammar_compiler.compile_request(request).is_active


def test_what_can_be_enforced_in_full_is(model):
    schema = {"type": "string", "pattern": "^[A-Z]{2}$"}
    assert len(json.loads(drawn_reply(model, schema, 1))) == 2
    assert relax_schema(schema) == schema


INTEGERS = {"type": "array", "items": {"type": "integer"}}


@pytest.mark.parametrize(
    ("schema", "relaxed"),
    [
        (INTEGERS | {"uniqueItems": True, "contains": {"const": 1}, "minContains": 2, "maxContains": 3}, INTEGERS),
        ({"type": "integer", "not": {"const": 1}}, {"type": "integer"}),
        ({"type": "integer", "if": {"const": 1}, "then": {}, "else": {}}, {"type": "integer"}),
        ({"type": "object", "dependentRequired": {"a": ["b"]}, "dependentSchemas": {"a": {}}}, {"type": "object"}),
        ({"oneOf": [INTEGERS, True]}, {"anyOf": [INTEGERS, True]}),
        ({"oneOf": [INTEGERS, True], "anyOf": [INTEGERS]}, {"anyOf": [INTEGERS]}),
        ({"type": "string", "pattern": "(?=a)", "minLength": 3}, {"type": "string", "minLength": 3}),
        ({"type": "string", "pattern": r"\bfoo\b"}, {"type": "string"}),
        ({"type": "string", "pattern": r"(a)\1"}, {"type": "string"}),
        ({"type": "string", "pattern": "^(a{1000}){100}$"}, {"type": "string"}),
        ({"type": "string", "format": "tea", "maxLength": 3}, {"type": "string", "maxLength": 3}),
        ({"type": "string", "format": "uuid4", "pattern": "^a"}, {"type": "string", "pattern": "^a"}),
        ({"type": "string", "maxLength": 10**12}, {"type": "string"}),
        ({"type": "integer", "multipleOf": 10**17, "minimum": 1}, {"type": "integer", "minimum": 1}),
        ({"type": "number", "minimum": 1e300}, {"type": "number"}),
        ({"patternProperties": {"^(?!x)": INTEGERS}, "additionalProperties": False}, {}),
        ({"patternProperties": {"^x": INTEGERS}}, {"patternProperties": {"^x": INTEGERS}}),
        (
            {"propertyNames": {"const": "a"}, "additionalProperties": INTEGERS},
            {"properties": {"a": INTEGERS}, "additionalProperties": False},
        ),
        (
            {"propertyNames": {"$ref": "#/$defs/Name"}, "$defs": {"Name": {"enum": ["a", 1]}}},
            {"$defs": {"Name": {"enum": ["a", 1]}}, "properties": {"a": True}, "additionalProperties": False},
        ),
        ({"propertyNames": {"pattern": "^x"}}, {"patternProperties": {"^x": True}, "additionalProperties": False}),
        ({"propertyNames": {"pattern": "^(?!x)"}}, {}),
        ({"propertyNames": {"maxLength": 3}}, {}),
        ({"properties": {"a": {}}, "propertyNames": {"enum": ["a"]}}, {"properties": {"a": {}}}),
        ({"items": 5, "propertyNames": False}, {"items": 5}),
    ],
)  # fmt: skip
def test_keywords_that_llguidance_does_not_know_are_left_out(schema, relaxed):
    assert relax_schema({"properties": {"x": schema}, "$defs": schema.get("$defs", {})})["properties"] == {
        "x": relaxed
    }


REFUSED = {
    "a pattern that is none": {"type": "string", "pattern": "("},
    "what nothing fits": {"type": "integer", "minimum": 5, "maximum": 3},
    "no type": {"type": "tea"},
    "a keyword that nobody checks": {"type": "object", "unevaluatedProperties": False},
    "a reference to nowhere": {"$ref": "#/nowhere"},
    "a reference to itself": {"$ref": "#"},
    "half a surrogate pair in a name": {"type": "object", "properties": {"\ud800": {}}},
    "half a surrogate pair in a constant": {"const": "\ud800"},
    "a constant of a megabyte": {"const": "x" * 1_000_000},
    "a name of a megabyte": {"type": "object", "properties": {"x" * 1_000_000: {}}},
    "infinity": {"type": "number", "maximum": float("inf")},
    "a number of 5,000 digits": {"type": "number", "maximum": 10**5000},
    "a set": {"enum": {1, 2}},
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("strict", [None, False])
def test_what_can_be_neither_enforced_nor_relaxed_is_refused_before_the_start(model, name, strict):
    with pytest.raises(UnsupportedInputError):
        matcher_of(model, REFUSED[name], strict)


def test_a_schema_that_is_nested_too_deeply_is_refused(model):
    schema = {"type": "integer"}
    for _ in range(500):
        schema = {"type": "object", "properties": {"a": schema}}
    with pytest.raises(UnsupportedInputError, match="nested too deeply"):
        matcher_of(model, schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [{"const": f"v{number}"} for number in range(5000)]},
        {"anyOf": [{"type": "integer", "minimum": number, "maximum": number} for number in range(5000)]},
        {"enum": [f"value {number}" for number in range(20_000)]},
        pytest.param(
            {"anyOf": [{"type": "object", "properties": {f"v{number}": {}}} for number in range(5000)]},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"type": "object", "properties": {f"p{number}": {"type": "null"} for number in range(5000)}},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["constants", "numbers", "an enum", "objects", "properties"],
)
def test_thousands_of_alternatives_are_enforced(model, schema):
    json.loads(drawn_reply(model, schema, 3))


def test_uuids_and_addresses_are_spelled_as_usual():
    patterns = {
        name: relax_schema({"type": "string", "format": name})["pattern"]
        for name in ("uuid4", "ipv4network", "ipv6network", "ipvanyaddress", "base64", "multi-host-uri")
    }
    for name, value in {
        "uuid4": "0f8fad5b-d9cb-469f-a165-70867728950e",
        "ipv4network": "10.0.0.0/8",
        "ipv6network": "2001:db8::/32",
        "ipvanyaddress": "192.168.1.255",
        "base64": "aGk=",
        "multi-host-uri": "postgres://user:pass@one:5432,two:5432/db",
    }.items():
        assert re.search(patterns[name], value)
    assert not re.search(patterns["uuid4"], "0f8fad5b-d9cb-169f-a165-70867728950e")
    assert not re.search(patterns["ipv4network"], "10.0.0.0/33")
    assert not re.search(patterns["ipvanyaddress"], "10.0.0.256")
