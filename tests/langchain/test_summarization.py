"""LangChain's middleware believes the tokens that a provider reported, the images' among them, and sums the thread up."""

import asyncio
import base64

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.messages import HumanMessage

from llama_vision import PROVIDERS
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.langchain import ChatLlamaVision
from llama_vision.providers.hosted import DEEPINFRA
from tests.emulator import completion
from tests.emulator.dialects import DIALECTS
from tests.langchain.output_styles import every_style, form_of, message
from tests.langchain.weather import model_at

pytestmark = pytest.mark.filterwarnings("ignore:.*beta")  # LangChain says so of its own third version

TRIGGER = 5_000
IMAGE = {
    "type": "image",
    "base64": base64.b64encode(SAMPLE_IMAGES["circle"].read_bytes()).decode(),
    "mime_type": "image/png",
}


def reported(tokens):
    usage = {"prompt_tokens": tokens - 5, "completion_tokens": 5, "total_tokens": tokens}
    return completion("Blue.", usage=usage)


def ask_twice(model, way, *content):
    """Ask an agent with the middleware, and then again on the same thread."""
    summary = SummarizationMiddleware(model, trigger=("tokens", TRIGGER), keep=("messages", 1))
    agent = create_agent(model, middleware=[summary])
    messages = [HumanMessage([*content, "What colour?"])]
    for _ in range(2):
        asked = {"messages": messages}
        match way:
            case "invoke":
                state = agent.invoke(asked)
            case "ainvoke":
                state = asyncio.run(agent.ainvoke(asked))
            case _:  # the model streams inside
                state = list(agent.stream(asked, stream_mode=["messages", "values"]))[-1][1]
        messages = [*state["messages"], HumanMessage("And now?")]


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream"])
@pytest.mark.parametrize("provider", DIALECTS)
def test_a_thread_of_9000_reported_tokens_is_summed_up(emulator_of, provider, way):
    emulator = emulator_of(provider)
    emulator.script(reported(9_000), completion("A summary."), completion("Red."))
    ask_twice(model_at(emulator, provider), way)
    assert len(emulator.requests) == 3
    assert "A summary." in emulator.requests[2].content.decode()


def test_a_thread_of_fewer_reported_tokens_is_not(emulator):
    emulator.script(reported(TRIGGER - 1), completion("Red."))
    ask_twice(model_at(emulator), "invoke")
    assert len(emulator.requests) == 2


@pytest.mark.parametrize("tokens", [6_404, 1_601])
def test_images_count_as_the_provider_counted_them(emulator, tokens):
    emulator.script(reported(tokens), *[completion("A summary.")] * (tokens >= TRIGGER), completion("Red."))
    ask_twice(model_at(emulator), "invoke", IMAGE)
    assert len(emulator.requests) == (3 if tokens >= TRIGGER else 2)


@every_style
@pytest.mark.parametrize("provider", ["deepinfra", "cloudflare"])
def test_messages_name_the_same_provider_as_traces(emulator_of, provider, style):
    model = model_at(emulator_of(provider), provider, **form_of(style))
    metadata = message(model, style).response_metadata
    assert metadata["model_provider"] == model._get_ls_params()["ls_provider"]
    assert metadata["provider"] == model._get_invocation_params()["provider"] == provider


@pytest.mark.parametrize("provider", [*PROVIDERS, DEEPINFRA])
def test_every_provider_has_the_one_name_in_traces(provider):
    assert ChatLlamaVision(provider=provider)._get_ls_params()["ls_provider"] == "llama_vision"


def test_the_model_on_this_machine_names_it_too():
    model = ChatLlamaVision(provider="local", model="tiny")
    assert model.invoke("Say hi").response_metadata["model_provider"] == model._get_ls_params()["ls_provider"]
