"""Prompts and schemas for documents: both frameworks fill the schemas, by every method, and the tiny model too."""

import json

import pytest
from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock

from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.langchain import ChatLlamaVision, human
from llama_vision.llamaindex import LlamaVision
from llama_vision.prompts import (
    CHART_PROMPT,
    FORM_PROMPT,
    OCR_PROMPT,
    TABLE_PROMPT,
    Chart,
    Form,
    Table,
)
from llama_vision.testing import ScriptedServer

FILLED = {
    Chart: {
        "kind": "bar",
        "title": None,
        "x_axis": "month",
        "y_axis": None,
        "series": [
            {"name": "", "points": [{"label": "March", "value": 2.5}, {"label": "May", "value": None}]}
        ],
    },
    Table: {"title": "Prices", "header": ["what", "price"], "rows": [["bread", "2.10"], ["milk", ""]]},
    Form: {"title": "Invoice", "fields": [{"label": "No.", "value": "17"}, {"label": "paid", "value": True}]},
}
each_schema = pytest.mark.parametrize(
    ("schema", "prompt"), [(Chart, CHART_PROMPT), (Table, TABLE_PROMPT), (Form, FORM_PROMPT)]
)


@each_schema
@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_langchain_fills_the_schema(schema, prompt, method):
    with ScriptedServer(json.dumps(FILLED[schema])) as server:
        model = ChatLlamaVision(**server.model_options).with_structured_output(schema, method=method)
        found = model.invoke([human(prompt, SAMPLE_IMAGES["sign"])])
        assert prompt in server.requests[0].text
    assert found.model_dump() == FILLED[schema]


@each_schema
def test_llamaindex_fills_it_too(schema, prompt):
    with ScriptedServer(json.dumps(FILLED[schema])) as server:
        llm = LlamaVision(**server.model_options).as_structured_llm(schema)
        blocks = [ImageBlock(path=SAMPLE_IMAGES["sign"]), TextBlock(text=prompt)]
        found = llm.chat([ChatMessage(blocks=blocks)])
        assert server.requests[0].images == [SAMPLE_IMAGES["sign"].read_bytes()]
    assert found.raw.model_dump() == FILLED[schema]


@pytest.mark.slow
@each_schema
def test_the_local_model_can_only_answer_in_the_schemas_form(schema, prompt):
    model = ChatLlamaVision(provider="local", max_tokens=400, temperature=0)
    found = model.with_structured_output(schema, include_raw=True).invoke(
        [human(prompt, SAMPLE_IMAGES["sign"])]
    )
    cut = found["raw"].response_metadata["finish_reason"] == "length"
    assert cut or isinstance(found["parsed"], schema), found["parsing_error"]


def test_a_table_is_written_as_markdown_with_its_short_rows_filled_up():
    table = Table(title=None, header=["a|b", "c"], rows=[["1"], ["two\nlines", "3"]])
    assert table.to_markdown() == "| a\\|b | c |\n| --- | --- |\n| 1 |  |\n| two lines | 3 |"


def test_prompts_ask_for_nothing_but_what_is_there():
    assert all("can't be read" in prompt for prompt in (CHART_PROMPT, TABLE_PROMPT, OCR_PROMPT))
    assert "Invent nothing" in FORM_PROMPT
