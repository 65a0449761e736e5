"""Our own models through the server say what the local model says itself."""

import base64

import pytest
from langchain_core.messages import HumanMessage
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from pydantic import BaseModel

from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision


class Count(BaseModel):
    """How many there are."""

    n: int


def _message():
    image = base64.b64encode(SAMPLE_IMAGES["shapes"].read_bytes()).decode()
    question = {"type": "text", "text": "How many circles are there?"}
    return HumanMessage([{"type": "image", "base64": image, "mime_type": "image/png"}, question])


@pytest.fixture
def models(served):
    return [
        ChatLlamaVision(provider="local"),
        ChatLlamaVision(provider="llama-vision", model="tiny", base_url=f"{served.url}/v1"),
    ]


def test_langchain_is_told_the_same(models):
    here, there = (model.invoke([_message()]) for model in models)
    assert there.text == here.text
    assert there.usage_metadata["output_tokens"] == here.usage_metadata["output_tokens"]


async def test_langchain_streams_the_same(models):
    here, there = ["".join([chunk.text async for chunk in model.astream([_message()])]) for model in models]
    assert there == here


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_is_the_same(models, method):
    here, there = (
        model.with_structured_output(Count, method=method).invoke([_message()]) for model in models
    )
    assert there == here == Count(n=here.n)


def test_llamaindex_is_told_the_same(served):
    message = ChatMessage(
        role="user",
        blocks=[ImageBlock(path=SAMPLE_IMAGES["circle"]), TextBlock(text="What color is the circle?")],
    )
    here = LlamaVision(provider="local").chat([message])
    there = LlamaVision(provider="llama-vision", model="tiny", api_base=f"{served.url}/v1").chat([message])
    assert there.message.content == here.message.content == "blue"


def test_the_environment_does_it_for_a_whole_notebook(served, monkeypatch):
    monkeypatch.setenv("LLAMA_VISION_PROVIDER", "llama-vision")
    assert ChatLlamaVision(base_url=f"{served.url}/v1").invoke([_message()]).text == "2"
