"""A new provider is one record: it works through both adapters with everything that its record says."""

import pytest

from llama_vision import Provider
from llama_vision.cli.providers import markdown_table
from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.models import ModelInfo, Price
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision
from llama_vision.providers import PROVIDERS, UNBOUNDED, ImageConstraints, Range

EXAMPLE = Provider(
    name="example",
    title="Example",
    base_url="https://api.example.com/v1",
    key_env=("EXAMPLE_API_KEY",),
    models=(
        ModelInfo("llama-3.2-11b-vision", "meta-llama/Llama-3.2-11B-Vision-Instruct", price=Price(1.0, 2.0)),
    ),
    image_rules=ImageConstraints(max_count=1),
    parameters={"max_tokens": UNBOUNDED, "temperature": Range(0, 1)},
    docs="https://example.com",
)


@pytest.fixture
def registered(monkeypatch):
    """The one line in `PROVIDERS`."""
    monkeypatch.setitem(PROVIDERS, EXAMPLE.name, EXAMPLE)


@pytest.mark.usefixtures("registered")
def test_one_record_and_one_line_make_a_provider(emulator, monkeypatch):
    monkeypatch.setenv("EXAMPLE_API_KEY", emulator.api_key)
    message = ChatLlamaVision(provider="example", base_url=emulator.base_url, temperature=0.5).invoke(
        "Hello!"
    )
    response = LlamaVision(provider="example", api_base=emulator.base_url).complete("Hello!")
    assert message.text == response.text != ""
    assert message.response_metadata["provider"] == "example"
    assert {request.body["model"] for request in emulator.requests} == {EXAMPLE.models[0].id}
    with pytest.raises(UnsupportedInputError, match="from 0 to 1"):
        ChatLlamaVision(provider="example", temperature=1.5).invoke("Hello!")
    assert "`example`" in markdown_table()


def test_a_record_need_not_even_be_registered(emulator):
    model = ChatLlamaVision(provider=EXAMPLE, base_url=emulator.base_url, api_key=emulator.api_key)
    assert model.invoke("Hello!").response_metadata["provider"] == "example"
