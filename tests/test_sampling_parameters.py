"""A sampling parameter is a field of `SamplingParams`: both adapters take it, and it reaches the wire under its name."""

from dataclasses import fields

import pytest

from llama_vision.core.call_options import CALL_OPTIONS
from llama_vision.core.request import SamplingParams
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision
from llama_vision.testing import ScriptedServer

every_parameter = pytest.mark.parametrize("field", fields(SamplingParams), ids=lambda field: field.name)


@every_parameter
def test_it_is_an_option_of_every_call(field):
    assert field.name in CALL_OPTIONS


@every_parameter
def test_it_is_a_field_of_the_langchain_model_with_the_same_default(field):
    assert ChatLlamaVision.model_fields[field.name].default == field.default


@every_parameter
def test_it_is_sent_by_langchain_from_the_constructor_and_from_the_call(field):
    with ScriptedServer("Hi", "Hi") as server:
        ChatLlamaVision(**server.model_options, **{field.name: 1}).invoke("Hi")
        ChatLlamaVision(**server.model_options).invoke("Hi", **{field.name: 1})
        assert [request.body[field.name] for request in server.requests] == [1, 1]


@every_parameter
def test_it_is_sent_by_llamaindex_from_the_constructor_and_from_the_call(field):
    own = field.name in LlamaVision.model_fields
    with ScriptedServer("Hi", "Hi") as server:
        options = {field.name: 1}
        LlamaVision(**server.model_options, **(options if own else {"additional_kwargs": options})).complete(
            "Hi"
        )
        LlamaVision(**server.model_options).complete("Hi", **options)
        assert [request.body[field.name] for request in server.requests] == [1, 1]
