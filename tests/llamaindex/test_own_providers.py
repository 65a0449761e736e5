"""A model with a provider record of the user's own can be saved and loaded, and shares no cache with another."""

import copy
import json
import pickle
from dataclasses import dataclass, replace

import pytest
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.schema import Document, TransformComponent

from llama_vision.core.errors import ConfigurationError
from llama_vision.core.models import ModelInfo
from llama_vision.dialects.chat_completions.dialect import ChatCompletionsDialect
from llama_vision.llamaindex import LlamaVision, LlamaVisionMultiModal
from llama_vision.providers import PROVIDERS, ImageConstraints, Provider, Range
from tests.emulator import ACCOUNT_ID, completion

MODEL = ModelInfo(
    "mine", "meta-llama/Llama-3.2-11B-Vision-Instruct", response_formats=frozenset({"json_schema"})
)
MINE = Provider(
    name="mine",
    title="My own",
    models=(MODEL,),
    base_url="https://mine.example/v1",
    parameters={"temperature": Range(0, 1), "max_tokens": Range(1, float("inf"))},
    image_rules=ImageConstraints(max_count=1),
)
BOTH = pytest.mark.parametrize("model_class", [LlamaVision, LlamaVisionMultiModal])


class Describe(TransformComponent):
    """A step of a pipeline that asks a model."""

    llm: LlamaVision

    def __call__(self, nodes, **_):
        for node in nodes:
            node.set_content(self.llm.complete(node.get_content()).text)
        return nodes


@dataclass(frozen=True)
class OwnDialect(ChatCompletionsDialect):
    """A dialect of the user's own."""


@BOTH
@pytest.mark.parametrize("provider", [MINE, *(replace(each, name="mine") for each in PROVIDERS.values())])
def test_a_model_with_a_record_of_ones_own_is_saved_and_loaded(model_class, provider):
    model = model_class(provider=provider, temperature=0.5)
    for other in (
        model_class.from_dict(model.to_dict()),
        model_class.from_dict(json.loads(json.dumps(model.to_dict()))),
        model_class.from_json(model.to_json()),
        model_class(**model.model_dump()),
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),  # noqa: S301 - our own bytes
    ):
        assert other.provider == provider
        assert other.temperature == 0.5


@BOTH
@pytest.mark.parametrize("name", PROVIDERS)
def test_a_registered_record_is_saved_by_its_name(model_class, name):
    assert model_class(provider=PROVIDERS[name]).to_dict()["provider"] == name


@pytest.mark.parametrize("name", ["deepinfra", "cloudflare"])
def test_a_loaded_model_asks_the_same(emulator_of, name):
    emulator = emulator_of(name)
    account = {"account_id": ACCOUNT_ID} if name == "cloudflare" else {}
    record = replace(PROVIDERS[name], name="mine", base_url=emulator.base_url)
    model = LlamaVision(provider=record, api_key=emulator.api_key, **account)
    for llm in (model, LlamaVision.from_json(model.to_json(), api_key=emulator.api_key)):
        llm.complete("Hi")
    one, other = emulator.requests
    assert one.content == other.content


def test_two_records_of_one_name_share_no_cached_nodes(emulator, other_emulator):
    cache = IngestionCache()
    for server, text in ((emulator, "One."), (other_emulator, "Two.")):
        server.script(completion(text))
        llm = LlamaVision(provider=replace(MINE, base_url=server.base_url), api_key=server.api_key)
        for _ in range(2):  # the second time from the cache
            pipeline = IngestionPipeline(transformations=[Describe(llm=llm)], cache=cache)
            (node,) = pipeline.run(documents=[Document(text="What?")])
            assert node.get_content() == text


def test_a_dialect_of_ones_own_has_to_be_passed_again():
    provider = replace(MINE, dialect=OwnDialect())
    saved = LlamaVision(provider=provider).to_dict()
    with pytest.raises(ConfigurationError, match="provider=RECORD"):
        LlamaVision.from_dict(saved)
    assert LlamaVision.from_dict(saved, provider=provider).provider is provider


@pytest.mark.parametrize(
    "saved",
    [
        {},
        {"record": "Nothing"},
        {"record": "Range", "low": 0, "high": 1},
        {"record": "Provider", "name": "mine", "of": "another version"},
        {"record": "Provider", "name": "mine", "title": "", "models": {"error": "Path"}},
        {"record": "Provider", "name": "mine", "title": "", "models": {"error": "ImageError"}},
    ],
    ids=repr,
)
def test_what_is_no_saved_record_is_refused(saved):
    with pytest.raises(ConfigurationError, match="can't be loaded"):
        LlamaVision(provider=saved)
