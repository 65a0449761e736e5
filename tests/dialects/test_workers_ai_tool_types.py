"""Cloudflare's native schema wants a type and a description for each argument; schemas made by pydantic have not always."""

import json

import pytest

from llama_vision.core.messages import Message, Text
from llama_vision.core.request import ChatRequest, Tool
from llama_vision.dialects.workers_ai.dialect import WorkersAiDialect

DEFINITIONS = {
    "Color": {"enum": ["red", "green"], "type": "string"},
    "Place": {"properties": {}, "type": "object"},
    "Same": {"$ref": "#/$defs/Same"},
}


def sent(argument, **more):
    parameters = {"type": "object", "properties": {"x": argument}, "$defs": DEFINITIONS, **more}
    request = ChatRequest("m", (Message("user", (Text("Hi"),)),), tools=(Tool("f", "", parameters),))
    (tool,) = json.loads(WorkersAiDialect().encode(request, stream=False).body)["tools"]
    return tool["function"]["parameters"]["properties"]["x"]


@pytest.mark.parametrize(
    ("argument", "kind"),
    [
        ({"type": "integer"}, "integer"),
        ({"type": ["null", "number"]}, "number"),
        ({"type": ["null"]}, "string"),
        ({"type": []}, "string"),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, "integer"),
        ({"anyOf": [{"type": "array", "items": {}}, {"type": "null"}]}, "array"),
        ({"oneOf": [{"anyOf": [{"type": "null"}]}, {"type": ["null", "boolean"]}]}, "boolean"),
        ({"anyOf": [{"type": "null"}]}, "string"),
        ({"allOf": [{"$ref": "#/$defs/Place"}], "default": {}}, "object"),
        ({"anyOf": [{"$ref": "#/$defs/Color"}, {"type": "null"}]}, "string"),
        ({"$ref": "#/$defs/Color"}, "string"),
        ({"$ref": "#/$defs/Place"}, "object"),
        ({"$ref": "#/$defs/Same"}, "object"),
        ({"$ref": "#/$defs/Missing"}, "object"),
        ({"$ref": 7}, "object"),
        ({"enum": ["a", "b"]}, "string"),
        ({}, "string"),
    ],
    ids=str,
)
def test_each_argument_has_one_type(argument, kind):
    assert sent(argument) == {"description": "", **argument, "type": kind}


def test_a_type_and_a_description_of_its_own_are_kept():
    own = {"type": "string", "description": "Where to look."}
    assert sent(own) == own


def test_an_argument_without_a_schema_is_a_string():
    assert sent(True) == {"description": "", "type": "string"}
