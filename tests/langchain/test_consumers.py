"""What LangChain does with a chat model: chains, fallbacks, retries, configurations, limits, counts, events."""

import asyncio
import time

import pytest
from langchain_core.callbacks import UsageMetadataCallbackHandler, get_usage_metadata_callback
from langchain_core.exceptions import ModelAPIError, ModelRateLimitError
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.rate_limiters import BaseRateLimiter, InMemoryRateLimiter
from langchain_core.runnables import ConfigurableField, RunnableParallel, RunnablePassthrough

from tests.emulator import completion
from tests.langchain.output_styles import WAYS, added_up, form_of, message
from tests.langchain.output_styles import every_style as every_form
from tests.langchain.weather import Weather, ask, every_style, model_at

GREETING = "Hello! How can I help you today?"
SMALL, LARGE = (f"meta-llama/Llama-3.2-{size}-Vision-Instruct" for size in ("11B", "90B"))


def echo(received):
    return completion(f"You said: {received.body['messages'][-1]['content']}")


def counted(tokens_in, tokens_out):
    """A reply with counts of its own."""
    total = tokens_in + tokens_out
    return completion(
        "Counted.",
        usage={"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": total},
    )


def counts(tokens_in, tokens_out):
    return {
        "input_tokens": tokens_in,
        "output_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
    }


# Chains.


@every_style
def test_a_chain_of_prompt_model_and_parser(emulator, style):
    emulator.always(echo)
    prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{place}?")])
    chain = {"place": RunnablePassthrough()} | prompt | model_at(emulator) | StrOutputParser()
    answer = ask(chain, style, "Paris")
    assert answer == ("" if "stream" in style else "You said: Paris?")  # of a stream it is the end
    assert [message["content"] for message in emulator.requests[0].body["messages"]] == [
        "Be brief.",
        "Paris?",
    ]
    assert emulator.requests[0].streamed == ("stream" in style)


def test_the_pieces_of_a_chain_come_as_they_come(emulator):
    chain = model_at(emulator) | StrOutputParser()
    pieces = [piece for piece in chain.stream("Hi") if piece]
    assert len(pieces) == 7
    assert "".join(pieces) == GREETING


def test_a_parser_sees_an_object_grow(emulator):
    emulator.script(completion('{"city": "Paris", "days": [1, 2]}'))
    grown = list((model_at(emulator) | JsonOutputParser()).stream("Hi"))
    assert grown[-1] == {"city": "Paris", "days": [1, 2]}
    assert len(grown) > 2


def test_branches_ask_at_the_same_time(emulator):
    emulator.always(echo)
    model = model_at(emulator) | StrOutputParser()
    both = RunnableParallel(one=model, other=(lambda text: text + "!") | model)
    assert both.invoke("Hi") == {"one": "You said: Hi", "other": "You said: Hi!"}
    assert asyncio.run(both.ainvoke("Hi")) == {"one": "You said: Hi", "other": "You said: Hi!"}
    assert len(emulator.requests) == 4


@every_style
def test_another_model_takes_over(emulator, other_emulator, style):
    emulator.script(emulator.refusal(429))
    chain = model_at(emulator).with_fallbacks([model_at(other_emulator, model="llama-3.2-90b-vision")])
    answer = ask(chain | StrOutputParser(), style)
    assert answer == ("" if "stream" in style else GREETING)  # of a stream it is the end
    assert other_emulator.requests[0].body["model"] == LARGE
    assert (len(emulator.requests), len(other_emulator.requests)) == (1, 1)


def test_only_for_errors_that_are_named(emulator, other_emulator):
    emulator.script(emulator.refusal(401))
    model = model_at(emulator).with_fallbacks(
        [model_at(other_emulator)], exceptions_to_handle=(ModelRateLimitError, ModelAPIError)
    )
    with pytest.raises(Exception, match="401"):
        model.invoke("Hi")
    assert other_emulator.requests == []


def test_tools_are_bound_to_all_that_may_take_over(emulator, other_emulator):
    emulator.script(emulator.refusal(503))
    model = model_at(emulator).with_fallbacks([model_at(other_emulator)]).bind_tools([Weather])
    (call,) = model.invoke("The weather in Paris?").tool_calls
    assert call["name"] == "Weather"
    assert other_emulator.requests[0].body["tools"]


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_a_call_is_made_again(emulator, way):
    emulator.script(emulator.refusal(503), emulator.refusal(429))
    model = model_at(emulator).with_retry(
        retry_if_exception_type=(ModelAPIError, ModelRateLimitError),
        stop_after_attempt=3,
        wait_exponential_jitter=False,
    )
    assert ask(model, way).text == GREETING
    assert len(emulator.requests) == 3


def test_fields_can_be_chosen_for_each_call(emulator):
    model = model_at(emulator).configurable_fields(
        model_name=ConfigurableField("model"),
        temperature=ConfigurableField("heat"),
        max_tokens=ConfigurableField("length"),
    )
    chain = ChatPromptTemplate.from_template("{text}") | model
    chosen = {"configurable": {"model": "llama-3.2-90b-vision", "heat": 0.5, "length": 3}}
    assert chain.invoke({"text": "Hi"}, chosen).text == "Hello! How can"
    assert chain.invoke({"text": "Hi"}).text == GREETING
    assert [chunk.text for chunk in chain.stream({"text": "Hi"}, chosen)][:3] == ["Hello!", " How", " can"]
    bodies = [received.body for received in emulator.requests]
    assert [body["model"] for body in bodies] == [LARGE, SMALL, LARGE]
    assert [body.get("temperature") for body in bodies] == [0.5, None, 0.5]
    assert [body["max_tokens"] for body in bodies] == [3, 1024, 3]


def test_models_can_be_chosen_for_each_call(emulator, other_emulator):
    model = model_at(emulator).configurable_alternatives(
        ConfigurableField("where"), default_key="here", there=model_at(other_emulator)
    )
    assert model.invoke("Hi", {"configurable": {"where": "there"}}).text == GREETING
    assert (emulator.requests, len(other_emulator.requests)) == ([], 1)


# Limits.


@pytest.mark.parametrize("way", WAYS)
def test_a_limit_is_kept(emulator, way):
    limiter = InMemoryRateLimiter(requests_per_second=10, check_every_n_seconds=0.005, max_bucket_size=1)
    model = model_at(emulator, rate_limiter=limiter)
    began = time.monotonic()
    for _ in range(3):
        message(model, ("v0", way))
    assert len(emulator.requests) == 3
    assert emulator.requests[-1].at - began > 0.2


class Counter(BaseRateLimiter):
    """Lets everyone through."""

    def __init__(self):
        self.acquired = 0

    def acquire(self, *, blocking=True):
        self.acquired += 1
        return True

    async def aacquire(self, *, blocking=True):
        return self.acquire()


@pytest.mark.filterwarnings("ignore:.*beta")  # LangChain says so of its own third version
@every_form
def test_a_call_counts_once_against_a_limit(emulator, style):
    counter = Counter()
    message(model_at(emulator, rate_limiter=counter, **form_of(style)), style)
    assert (counter.acquired, len(emulator.requests)) == (1, 1)


# Counts.


def test_tokens_are_counted_exactly_by_model(emulator):
    replies = [counted(10**at, 2 * 10**at) for at in range(7)]
    emulator.script(*replies)
    handler = UsageMetadataCallbackHandler()
    config = {"callbacks": [handler]}
    small, large = model_at(emulator), model_at(emulator, model="llama-3.2-90b-vision")
    small.invoke("Hi", config)
    asyncio.run(small.ainvoke("Hi", config))
    list(small.stream("Hi", config))
    small.bind(stream=True).invoke("Hi", config)
    large.batch(["Hi", "Ho"], config)
    (large | StrOutputParser()).invoke("Hi", config)
    assert handler.usage_metadata == {SMALL: counts(1111, 2222), LARGE: counts(1110000, 2220000)}


async def test_tokens_are_counted_in_coroutines(emulator):
    emulator.script(*(counted(10**at, 1) for at in range(4)))
    model = model_at(emulator)
    with get_usage_metadata_callback() as handler:
        await model.abatch(["Hi", "Ho"])
        async for _ in model.astream("Hi"):
            pass
        async for _ in model.astream_events("Hi", version="v2"):
            pass
    assert handler.usage_metadata == {SMALL: counts(1111, 4)}


# Events.


async def test_events_of_the_second_version(emulator):
    chain = (model_at(emulator) | StrOutputParser()).with_config(run_name="chain")
    events = [event async for event in chain.astream_events("Hi", version="v2")]
    of_model = [event for event in events if event["event"].startswith("on_chat_model")]
    first, *streamed, last = of_model
    assert (first["event"], last["event"]) == ("on_chat_model_start", "on_chat_model_end")
    assert {event["event"] for event in streamed} == {"on_chat_model_stream"}
    assert {event["name"] for event in of_model} == {"ChatLlamaVision"}
    assert added_up(event["data"]["chunk"] for event in streamed) == last["data"]["output"]
    assert last["data"]["output"].usage_metadata["output_tokens"] == 7
    assert first["metadata"]["ls_provider"] == "llama_vision"
    assert events[-1]["data"]["output"] == GREETING


@pytest.mark.filterwarnings("ignore:.*beta")  # LangChain says so of its own
async def test_events_of_the_third_version_can_be_read_by_kind(emulator):
    emulator.script(completion("Let me look.", calls=[("Weather", {"city": "Paris", "days": 3})]))
    stream = await model_at(emulator).bind_tools([Weather]).astream_events("Hi", version="v3")
    assert [piece async for piece in stream.text] == ["Let", " me", " look."]
    output = await stream.output
    assert [call["args"] for call in output.tool_calls] == [{"city": "Paris", "days": 3}]
