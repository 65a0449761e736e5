"""Several providers, and limits, in every class: LangChain, LlamaIndex, the command line, captions and batches."""

import asyncio
import copy
import json
import pickle

import pytest
from langchain_core.load import dumps

from llama_vision.backends.circuit_breaker import close_breakers
from llama_vision.cli import main
from llama_vision.core.errors import BudgetExceededError, ConfigurationError, RateLimitError
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision, LlamaVisionMultiModal, caption_images
from llama_vision.providers import PROVIDERS
from llama_vision.providers.route import Route, Target, first_provider
from llama_vision.ray import BatchAsker
from llama_vision.ray.dataset import share_limits
from tests.backends.routes import records_of
from tests.emulator import Emulator, completion, refusal


@pytest.fixture(scope="module")
def servers():
    with Emulator() as first, Emulator() as second:
        yield first, second


@pytest.fixture
def records(servers, monkeypatch):
    """The first is too busy for the next hundred seconds, and the second answers; the command line knows both."""
    close_breakers()
    for server in servers:
        server.reset()
    servers[0].always(refusal(429, retry_after=100))
    servers[1].always(completion("From the second."))
    records = records_of(servers)
    for record in records:
        monkeypatch.setitem(PROVIDERS, record.name, record)
    return records


def test_langchain_in_all_four_ways(records, servers):
    model = ChatLlamaVision(provider=records)

    async def ways():
        yield model.invoke("Hi")
        yield await model.ainvoke("Hi")
        yield sum_chunks(list(model.stream("Hi")))
        yield sum_chunks([chunk async for chunk in model.astream("Hi")])

    async def collect():
        return [message async for message in ways()]

    messages = asyncio.run(collect())
    assert [message.text for message in messages] == ["From the second."] * 4
    assert {message.response_metadata["provider"] for message in messages} == {"second"}
    assert messages[0].response_metadata["tried"][0]["error"] == "RateLimitError"
    assert "tried" not in messages[1].response_metadata  # the first was not asked again
    assert len(servers[0].requests) == 1


def sum_chunks(chunks):
    first, *others = chunks
    for chunk in others:
        first += chunk
    return first


def test_langchain_tells_models_of_other_routes_apart(records):
    one, other = ChatLlamaVision(provider=records), ChatLlamaVision(provider=records[::-1])
    assert one._get_llm_string() != other._get_llm_string()
    assert one._get_llm_string() == ChatLlamaVision(provider=list(records))._get_llm_string()


@pytest.mark.parametrize("kind", [LlamaVision, LlamaVisionMultiModal])
def test_llamaindex_in_all_four_ways(records, servers, kind):
    llm = kind(provider=records)

    async def collect():
        stream = await llm.astream_complete("Hi")
        return [
            llm.complete("Hi"),
            await llm.acomplete("Hi"),
            list(llm.stream_complete("Hi"))[-1],
            [response async for response in stream][-1],
        ]

    responses = asyncio.run(collect())
    assert [response.text for response in responses] == ["From the second."] * 4
    assert {response.raw["provider"] for response in responses} == {"second"}
    assert len(servers[0].requests) == 1


@pytest.mark.parametrize(
    "choose",
    [
        lambda records: ["first", "second"],
        list,
        lambda records: Route([Target(records[0], weight=9), records[1]], first_token_timeout=5),
    ],
    ids=["names", "records", "route"],
)
def test_a_saved_llamaindex_model_has_the_same_providers(records, choose):
    llm = LlamaVision(provider=choose(records))
    for loaded in (
        LlamaVision.from_dict(json.loads(json.dumps(llm.to_dict()))),
        pickle.loads(pickle.dumps(llm)),  # noqa: S301 - made here
    ):
        assert first_provider(loaded.provider) == records[0]
        assert isinstance(loaded.provider, Route) == isinstance(llm.provider, Route)
        assert loaded.complete("Hi").text == "From the second."


def test_the_command_line_takes_several_names(records, capsys):
    assert main(["ask", "--provider", "first,second", "Hi"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "From the second.\n"
    assert printed.err.startswith("second, after first (RateLimitError) | ")
    assert main(["ask", "--provider", "first,second", "--json", "Hi"]) == 0
    assert json.loads(capsys.readouterr().out)["provider"] == "second"


def test_the_command_line_keeps_a_budget(records, servers, capsys):
    assert main(["ask", "--provider", "second", "--max-cost", "0.000001", "Hi"]) == 1
    assert "max_cost_usd" in capsys.readouterr().err
    assert not servers[1].requests


def test_captions_of_a_folder_ask_several_providers(records, servers, tmp_path, capsys):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").write_bytes(SAMPLE_IMAGES["circle"].read_bytes() + name.encode())
    out = tmp_path / "captions.jsonl"
    arguments = [
        "caption",
        str(tmp_path),
        "--out",
        str(out),
        "--provider",
        "first,second",
        "--concurrency",
        "1",
    ]
    assert main(arguments) == 0
    capsys.readouterr()
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["caption"] for line in lines] == ["From the second."] * 3
    assert {line["model"].partition("/")[0] for line in lines} == {"second"}
    assert len(servers[0].requests) == 1
    captions = caption_images(tmp_path, llm=LlamaVision(provider=records))
    assert not captions.failures
    assert {node.text for node in captions.nodes} == {"From the second."}


def test_a_batch_asks_several_providers_and_keeps_its_budget(records):
    batch = {"prompt": ["One", "Two"]}
    ask = BatchAsker(provider=["first", "second"], prompt_column="prompt", image_column=None, concurrency=1)
    assert ask(batch)["text"] == ["From the second."] * 2
    assert "first,second" in repr(ask)
    poor = BatchAsker(
        provider="second", prompt_column="prompt", image_column=None, concurrency=1, max_cost_usd=0.000001
    )
    assert poor(batch)["error_type"] == ["BudgetExceededError"] * 2


def test_the_actors_of_a_dataset_share_the_limits_of_the_run():
    assert share_limits({"max_cost_usd": 6.0, "requests_per_minute": 100}, 4) == {
        "max_cost_usd": 1.5,
        "requests_per_minute": 25,
    }
    assert share_limits({"schema": None}, 4) == {}
    with pytest.raises(ConfigurationError, match="one for each of 4 actors"):
        share_limits({"requests_per_minute": 3}, 4)


def test_langchain_dumps_a_model_with_several_providers(records):
    for provider in (["first", "second"], Route(["first", "second"])):
        assert "first" in dumps(ChatLlamaVision(provider=provider))


@pytest.mark.parametrize("kind", [ChatLlamaVision, LlamaVision])
def test_a_model_keeps_its_budget_over_all_its_calls_and_copies(records, servers, kind):
    def call(model):
        return model.invoke("Hi") if kind is ChatLlamaVision else model.complete("Hi")

    model = kind(provider=records[1], max_tokens=100, max_cost_usd=0.0021)
    call(model)
    spent = model.spent_usd
    assert 0 < spent < 0.001
    call(copy.copy(model))
    assert model.spent_usd == pytest.approx(2 * spent)
    model.max_cost_usd = 0.001
    with pytest.raises(BudgetExceededError, match="max_cost_usd"):
        call(model)
    assert len(servers[1].requests) == 2
    loaded = pickle.loads(pickle.dumps(model))  # noqa: S301 - made here
    assert loaded.spent_usd == model.spent_usd


@pytest.mark.parametrize("kind", [ChatLlamaVision, LlamaVision])
def test_limits_that_can_not_be_are_refused_when_the_model_is_made(kind):
    with pytest.raises(ConfigurationError, match="max_concurrency"):
        kind(max_concurrency=0)


def test_where_all_are_busy_langchains_error_says_who_was_asked(records, servers):
    servers[1].always(refusal(429, retry_after=100))
    with pytest.raises(
        RateLimitError, match=r"first \(RateLimitError\), second \(RateLimitError\)"
    ) as caught:
        ChatLlamaVision(provider=records).invoke("Hi")
    assert [entry["provider"] for entry in caught.value.tried] == ["first", "second"]
