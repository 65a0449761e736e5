"""LangChain's agents run an errand of two tools where the model's calls come as text alone."""

import asyncio
import base64
import json
from functools import reduce

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRetryMiddleware
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from pydantic import BaseModel

from llama_vision.core.errors import AuthenticationError
from llama_vision.langchain import ChatLlamaVision
from tests.agents.errand import (
    ANSWER,
    CALLS,
    ENVELOPES,
    NO_CALLS,
    PROVIDERS,
    QUESTION,
    RESULTS,
    WORDS,
    Errand,
    as_json,
    check_what_was_sent,
    in_turn,
    model_that_writes,
    offered,
    place,
    told,
)
from tests.emulator import completion
from tests.emulator.posting import image

WAYS = ("invoke", "ainvoke", "stream", "astream")
every_provider = pytest.mark.parametrize("provider", PROVIDERS)
every_way = pytest.mark.parametrize("way", WAYS)


class Report(BaseModel):
    """What is told in the end."""

    city: str
    fahrenheit: float


def model_at(emulator, provider, **options):
    return ChatLlamaVision(base_url=emulator.base_url, **place(emulator, provider, **options))


def run(agent, way, *said):
    """Let an agent work; give its messages and, of a stream, the pieces that were shown."""
    given = {"messages": list(said) or [HumanMessage(QUESTION)]}

    async def streamed():
        return [item async for item in agent.astream(given, stream_mode=["messages", "values"])]

    match way:
        case "invoke":
            return agent.invoke(given), []
        case "ainvoke":
            return asyncio.run(agent.ainvoke(given)), []
        case "stream":
            items = list(agent.stream(given, stream_mode=["messages", "values"]))
        case _:
            items = asyncio.run(streamed())
    pieces = [item[0] for mode, item in items if mode == "messages"]
    return [item for mode, item in items if mode == "values"][-1], pieces


def replies_in(pieces):
    """Add up the pieces of each of the model's replies."""
    replies = {}
    for piece in pieces:
        if isinstance(piece, AIMessageChunk):
            replies.setdefault(piece.id, []).append(piece)
    return [reduce(lambda first, second: first + second, chunks) for chunks in replies.values()]


def calls_of(messages):
    return [
        (call["name"], call["args"])
        for message in messages
        if isinstance(message, AIMessage)
        for call in message.tool_calls
    ]


@pytest.mark.parametrize(("provider", "envelope", "way"), in_turn(PROVIDERS, ENVELOPES, WAYS))
@pytest.mark.slow_beyond(12)
def test_it_runs_the_errand(emulator_of, provider, envelope, way):
    emulator, errand = emulator_of(provider), Errand()
    emulator.script(*model_that_writes(envelope))
    state, pieces = run(create_agent(model_at(emulator, provider), errand.functions), way)
    _, first, weather, second, degrees, last = state["messages"]
    assert errand.calls == CALLS
    assert calls_of(state["messages"]) == CALLS
    assert [weather.content, degrees.content] == RESULTS
    assert weather.tool_call_id == first.tool_calls[0]["id"] != second.tool_calls[0]["id"]
    assert degrees.tool_call_id == second.tool_calls[0]["id"]
    words = WORDS if "after words" in envelope else ""
    assert [first.text.strip(), second.text.strip(), last.text] == [words, words, ANSWER]
    assert [each.response_metadata.get("finish_reason") for each in (first, second)] == ["tool_calls"] * 2
    check_what_was_sent(emulator, provider)
    if pieces:
        assert {received.streamed for received in emulator.requests} == {True}
        shown = replies_in(pieces)
        assert [each.text.strip() for each in shown] == [words, words, ANSWER]
        assert calls_of(shown) == CALLS
        assert len([piece for piece in pieces if piece.text and piece.id == shown[2].id]) > 1


@every_way
@every_provider
def test_it_sees_a_image_all_the_way(emulator_of, provider, way):
    emulator, errand, file = emulator_of(provider), Errand(), image()
    emulator.script(*model_that_writes("JSON"))
    block = {"type": "image", "base64": base64.b64encode(file).decode(), "mime_type": "image/png"}
    agent = create_agent(model_at(emulator, provider), errand.functions)
    state, _ = run(agent, way, HumanMessage([block, {"type": "text", "text": QUESTION}]))
    assert (errand.calls, state["messages"][-1].text) == (CALLS, ANSWER)
    assert [received.images for received in emulator.requests] == [[file]] * 3
    for received in emulator.requests:
        assert any(told(message).endswith(QUESTION) for message in received.body["messages"])


@pytest.mark.parametrize(("provider", "separator", "way"), in_turn(PROVIDERS, ["; ", "\n", ", "], WAYS))
def test_two_calls_in_one_reply_both_run(emulator_of, provider, way, separator):
    emulator, errand = emulator_of(provider), Errand()
    cities = ["Zürich", "Oslo"]
    calls = separator.join(as_json("get_weather", {"city": city}) for city in cities)
    emulator.script(completion(calls), completion("Zürich is warmer."))
    state, _ = run(create_agent(model_at(emulator, provider), errand.functions), way)
    assert sorted(args["city"] for _, args in errand.calls) == sorted(cities)
    _, called, *results, last = state["messages"]
    assert [call["args"]["city"] for call in called.tool_calls] == cities
    assert [result.tool_call_id for result in results] == [call["id"] for call in called.tool_calls]
    assert len({result.tool_call_id for result in results}) == 2
    assert last.text == "Zürich is warmer."
    sent = "\n".join(told(message) for message in emulator.requests[1].body["messages"]).replace("\\", "")
    assert sent.index('{"celsius": 21.0}') < sent.index('{"celsius": 9.0}')


@pytest.mark.parametrize(("provider", "wrong", "way"), in_turn(PROVIDERS, NO_CALLS, WAYS))
def test_what_is_no_whole_call_does_not_run(emulator_of, provider, way, wrong):
    emulator, errand = emulator_of(provider), Errand()
    text, reason = NO_CALLS[wrong]
    emulator.script(completion(text, finish_reason=reason))
    state, _ = run(create_agent(model_at(emulator, provider), errand.functions), way)
    assert errand.calls == []
    _, last = state["messages"]
    assert (last.text, last.tool_calls) == (text, [])


@every_way
@every_provider
@pytest.mark.slow_beyond(5)
def test_a_report_comes_as_a_call_in_text(emulator_of, provider, way):
    emulator, errand = emulator_of(provider), Errand()
    wrong = {"city": "Zürich", "fahrenheit": "warm"}
    right = {"city": "Zürich", "fahrenheit": 69.8}
    emulator.script(
        *model_that_writes("fence")[:2], *(completion(as_json("Report", report)) for report in (wrong, right))
    )
    agent = create_agent(model_at(emulator, provider), errand.functions, response_format=ToolStrategy(Report))
    state, _ = run(agent, way)
    assert state["structured_response"] == Report(**right)
    assert errand.calls == CALLS
    for received in emulator.requests:
        assert offered(received, provider) == ["get_weather", "to_fahrenheit", "Report"]
        forced = received.body.get("tool_choice") or told(received.body["messages"][-1])
        assert forced == "required" or "Reply to this with a call of one of the functions" in forced
    sent = [told(message) for message in emulator.requests[3].body["messages"]]
    assert sum("Failed to parse structured output" in words for words in sent) == 1
    complaint = [message for message in state["messages"] if isinstance(message, ToolMessage)][2]
    assert "Failed to parse structured output" in complaint.text


@every_way
def test_a_report_comes_as_the_provider_makes_it(emulator_of, way):
    emulator, errand = emulator_of("openai-compatible"), Errand()
    report = {"city": "Zürich", "fahrenheit": 69.8}
    emulator.script(*model_that_writes("Python")[:2], completion(json.dumps(report)))
    model = model_at(emulator, "openai-compatible")
    agent = create_agent(model, errand.functions, response_format=ProviderStrategy(Report))
    state, _ = run(agent, way)
    assert state["structured_response"] == Report(**report)
    assert errand.calls == CALLS
    for received in emulator.requests:
        wanted = received.body["response_format"]["json_schema"]
        assert (wanted["name"], list(wanted["schema"]["properties"])) == ("Report", ["city", "fahrenheit"])
        assert offered(received, "openai-compatible") == ["get_weather", "to_fahrenheit"]


@every_way
def test_a_report_without_tools_sends_none(emulator_of, way):
    emulator = emulator_of("openai-compatible")
    emulator.script(completion('{"city": "Zürich", "fahrenheit": 69.8}'))
    model = model_at(emulator, "openai-compatible")
    state, _ = run(create_agent(model, response_format=ProviderStrategy(Report)), way)
    assert state["structured_response"] == Report(city="Zürich", fahrenheit=69.8)
    assert not {"tools", "tool_choice"} & emulator.requests[0].body.keys()


def again():
    """Retries of LangChain's, of what LangChain itself takes for worth it, without waiting."""
    return ModelRetryMiddleware(max_retries=2, initial_delay=0, on_failure="error")


@every_way
@every_provider
@pytest.mark.slow_beyond(5)
def test_a_step_that_failed_is_made_again(emulator_of, provider, way):
    emulator, errand = emulator_of(provider), Errand()
    first, second, third = model_that_writes("JSON")
    emulator.script(first, emulator.refusal(503), emulator.refusal(429), second, third)
    agent = create_agent(model_at(emulator, provider), errand.functions, middleware=[again()])
    state, _ = run(agent, way)
    assert (errand.calls, state["messages"][-1].text) == (CALLS, ANSWER)
    refused = emulator.requests[1:3]
    assert [received.body for received in refused] == [emulator.requests[3].body] * 2


@every_way
def test_a_step_that_can_not_succeed_is_not(emulator_of, way):
    emulator = emulator_of("deepinfra")
    model = model_at(emulator, "deepinfra", api_key="wrong")
    agent = create_agent(model, Errand().functions, middleware=[again()])
    with pytest.raises(AuthenticationError):
        run(agent, way)
    assert len(emulator.requests) == 1
