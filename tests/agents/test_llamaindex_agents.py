"""LlamaIndex's agents run an errand of two tools where the model's calls come as text alone."""

import asyncio

import pytest
from llama_index.core.agent.workflow import (
    AgentStream,
    AgentWorkflow,
    FunctionAgent,
    ReActAgent,
    ToolCall,
    ToolCallResult,
)
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.tools import FunctionTool

from llama_vision.llamaindex import LlamaVision, ToolArgumentsError
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
    number_in,
    place,
    told,
)
from tests.emulator import completion
from tests.emulator.posting import image

# LlamaIndex's workflows look at all attributes of an agent, those that pydantic gave up among them.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
WAYS = ("streaming", "whole")
every_provider = pytest.mark.parametrize("provider", PROVIDERS)
every_way = pytest.mark.parametrize("way", WAYS)


def model_at(emulator, provider, **options):
    return LlamaVision(api_base=emulator.base_url, **place(emulator, provider, **options))


def tools_of(errand):
    return [FunctionTool.from_defaults(function) for function in errand.functions]


def agent_at(emulator, provider, way, errand, **options):
    return FunctionAgent(
        tools=tools_of(errand), llm=model_at(emulator, provider), streaming=way == "streaming", **options
    )


def run(agent, said=QUESTION):
    """Let an agent work; give what it answered, and what it told on the way."""

    async def worked():
        handler = agent.run(said)
        seen = [event async for event in handler.stream_events()]
        return await handler, seen

    return asyncio.run(worked())


def of_type(events, kind):
    return [event for event in events if type(event) is kind]


@pytest.mark.parametrize(("provider", "envelope", "way"), in_turn(PROVIDERS, ENVELOPES, WAYS))
@pytest.mark.slow_beyond(12)
def test_it_runs_the_errand(emulator_of, provider, envelope, way):
    emulator, errand = emulator_of(provider), Errand()
    emulator.script(*model_that_writes(envelope))
    answer, seen = run(agent_at(emulator, provider, way, errand))
    assert (errand.calls, str(answer)) == (CALLS, ANSWER)
    assert [(call.tool_name, call.tool_kwargs) for call in of_type(seen, ToolCall)] == CALLS
    assert [result.tool_output.content for result in of_type(seen, ToolCallResult)] == RESULTS
    assert len({call.tool_id for call in answer.tool_calls}) == 2
    check_what_was_sent(emulator, provider)
    pieces = of_type(seen, AgentStream)
    assert {received.streamed for received in emulator.requests} == {way == "streaming"}
    words = WORDS if "after words" in envelope else ""
    shown = "".join(piece.delta for piece in pieces).split()
    assert shown == (f"{words} {words} {ANSWER}".split() if way == "streaming" else [])


@every_way
@every_provider
def test_it_sees_a_image_all_the_way(emulator_of, provider, way):
    emulator, errand, file = emulator_of(provider), Errand(), image()
    emulator.script(*model_that_writes("JSON"))
    said = ChatMessage(role="user", blocks=[ImageBlock(image=file), TextBlock(text=QUESTION)])
    answer, _ = run(agent_at(emulator, provider, way, errand), said)
    assert (errand.calls, str(answer)) == (CALLS, ANSWER)
    assert [received.images for received in emulator.requests] == [[file]] * 3


@every_way
@every_provider
def test_two_calls_in_one_reply_both_run(emulator_of, provider, way):
    emulator, errand = emulator_of(provider), Errand()
    cities = ["Zürich", "Oslo"]
    calls = "; ".join(as_json("get_weather", {"city": city}) for city in cities)
    emulator.script(completion(calls), completion("Zürich is warmer."))
    answer, seen = run(agent_at(emulator, provider, way, errand))
    assert sorted(args["city"] for _, args in errand.calls) == sorted(cities)
    assert str(answer) == "Zürich is warmer."
    assert len({result.tool_id for result in of_type(seen, ToolCallResult)}) == 2
    sent = "\n".join(told(message) for message in emulator.requests[1].body["messages"]).replace("\\", "")
    assert {'{"celsius": 21.0}' in sent, '{"celsius": 9.0}' in sent} == {True}


@pytest.mark.parametrize(("provider", "wrong", "way"), in_turn(PROVIDERS, NO_CALLS, WAYS))
def test_what_is_no_whole_call_does_not_run(emulator_of, caplog, provider, wrong, way):
    emulator, errand = emulator_of(provider), Errand()
    text, reason = NO_CALLS[wrong]
    emulator.script(completion(text, finish_reason=reason))
    agent = agent_at(emulator, provider, way, errand)
    if reason == "length" and provider != "cloudflare":  # whose native route tells no reason
        with pytest.raises(ToolArgumentsError, match=r"get_weather can't be used.*raise max_tokens"):
            run(agent)
    else:
        answer, _ = run(agent)
        assert str(answer) == text
    assert errand.calls == []
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@every_way
@every_provider
def test_the_first_tool_is_chosen(emulator_of, provider, way):
    emulator, errand = emulator_of(provider), Errand()
    emulator.script(*model_that_writes("function tag"))
    answer, _ = run(agent_at(emulator, provider, way, errand, initial_tool_choice="get_weather"))
    assert (errand.calls, str(answer)) == (CALLS, ANSWER)
    forced = [
        received.body.get("tool_choice")
        or "a call of the function get_weather" in told(received.body["messages"][-1])
        for received in emulator.requests
    ]
    native = {"type": "function", "function": {"name": "get_weather"}}
    first = native if provider in ("deepinfra", "openai-compatible") else True
    assert [choice or False for choice in forced] == [first, False, False]


@every_provider
def test_a_workflow_of_agents_hands_over(emulator_of, provider):
    emulator, errand = emulator_of(provider), Errand()
    weather, degrees = tools_of(errand)
    llm = model_at(emulator, provider)
    agents = [
        FunctionAgent(name="weather", description="Knows the weather.", tools=[weather], llm=llm, can_handoff_to=["degrees"]),
        FunctionAgent(name="degrees", description="Converts degrees.", tools=[degrees], llm=llm),
    ]  # fmt: skip
    first, second, third = model_that_writes("fence")
    handed = as_json("handoff", {"to_agent": "degrees", "reason": "It is 21 °C."})
    emulator.script(first, completion(handed), second, third)
    answer, _ = run(AgentWorkflow(agents, root_agent="weather"))
    assert (errand.calls, str(answer)) == (CALLS, ANSWER)
    assert answer.current_agent_name == "degrees"


@every_way
def test_an_agent_that_thinks_aloud_runs_the_errand(emulator_of, way):
    emulator, errand = emulator_of("aimlapi"), Errand()
    emulator.script(
        completion('Thought: I need the weather.\nAction: get_weather\nAction Input: {"city": "Zürich"}'),
        lambda received: completion(
            f'Thought: Now the degrees.\nAction: to_fahrenheit\nAction Input: {{"celsius": {number_in(received, "celsius")}}}'
        ),
        lambda received: completion(
            f"Thought: I can answer.\nAnswer: It is {number_in(received, 'fahrenheit')} °F in Zürich."
        ),
    )
    agent = ReActAgent(
        tools=tools_of(errand), llm=model_at(emulator, "aimlapi"), streaming=way == "streaming"
    )
    answer, _ = run(agent)
    assert (errand.calls, str(answer)) == (CALLS, ANSWER)
