"""Schemas that no grammar can say, asked of the local model by LangChain, LlamaIndex and Ray."""

from typing import Annotated

import numpy as np
import pytest
from langchain_core.exceptions import OutputParserException
from llama_index.core.prompts import PromptTemplate
from pydantic import UUID4, BaseModel, Field, SecretStr

from llama_vision.core.errors import UnsupportedInputError
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision
from llama_vision.ray import BatchAsker


class Badge(BaseModel):
    """What no grammar can say in full."""

    id: UUID4
    colors: set[bool] = Field(max_length=2)
    secret: SecretStr = Field(max_length=5)
    code: Annotated[str, Field(max_length=5, json_schema_extra={"pattern": "^(?! )"})]


def with_langchain(schema):
    return ChatLlamaVision(provider="local").with_structured_output(schema).invoke("Give JSON")


def with_llamaindex(schema):
    return LlamaVision(provider="local").structured_predict(schema, PromptTemplate("Give JSON"))


def with_ray(schema):
    row = BatchAsker("Give JSON", image_column=None, schema=schema, provider="local")({"id": np.array([1])})
    assert row["error"][0] is None
    return schema.model_validate_json(row["json"][0])


@pytest.mark.parametrize("ask", [with_langchain, with_llamaindex, with_ray])
def test_what_no_grammar_can_say_is_validated(ask):
    found = ask(Badge)
    assert isinstance(found, Badge)
    assert found.id.version == 4
    assert isinstance(found.colors, set)


def code_schema(pattern):
    code = {"type": "string", "maxLength": 5, "pattern": pattern}
    return {"title": "Code", "type": "object", "properties": {"code": code}, "required": ["code"]}


def test_what_does_not_fit_is_asked_for_again():
    model = ChatLlamaVision(provider="local", max_tokens=50).with_structured_output(code_schema("^(?=zqj)"))
    with pytest.raises(OutputParserException, match=r"asked 3 times: code: should match \^\(\?=zqj\), not"):
        model.invoke("Give JSON")


def test_where_nobody_validates_it_is_refused_before_the_start():
    model = ChatLlamaVision(provider="local")
    for method in ("json_schema", "function_calling"):
        with pytest.raises(UnsupportedInputError, match="look-ahead"):
            model.with_structured_output(code_schema("^(?!#)"), method=method).invoke("Give JSON")
