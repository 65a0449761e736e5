"""Agents of both frameworks use two tools with the model on this machine, for which nothing is scripted.

The tiny model mostly answers after a result, so the second call of a chain has to be asked for, and a tool that is done with is not
offered again; a second errand in the same talk has to name its tool. Which tool comes first, what is in the calls, and the
answer are its own.
"""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Literal

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessageChunk, ToolMessage
from langchain_core.tools import StructuredTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from llama_index.core.agent.workflow import AgentStream, FunctionAgent
from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.objects import ObjectRetriever
from llama_index.core.tools import FunctionTool
from pydantic import UUID4, BaseModel, Field

from llama_vision.core.errors import UnsupportedInputError
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision

# LlamaIndex's workflows look at all attributes of an agent, those that pydantic gave up among them.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
PLACES = {"Paris": 20, "Lima": 158}
every_place = pytest.mark.parametrize("city", PLACES)
each_way = pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streaming"])


class Place(BaseModel):
    """Get the city"""

    city: str
    number: int


@dataclass
class Tools:
    """Two tools, and what they were called with."""

    calls: list = field(default_factory=list)

    def get_weather(self, city: str) -> str:
        self.calls.append(("get_weather", city))
        return json.dumps({"temperature": PLACES.get(city, 0)})

    def compute_number(self, number: int) -> str:
        self.calls.append(("compute_number", number))
        return json.dumps({"result": number * 9 // 5 + 32})

    def described(self, make):
        """Make tools of a framework, described as those that the model was taught with."""
        return [
            make(self.get_weather, description="Get the weather"),
            make(self.compute_number, description="Compute the number"),
        ]


class EveryToolOnce(AgentMiddleware):
    """Makes the model call every tool, in the order that it likes, before it answers."""

    def wrap_model_call(self, request, handler):
        called = {message.name for message in request.messages if isinstance(message, ToolMessage)}
        left = [tool for tool in request.tools if tool.name not in called]
        return handler(request.override(tools=left, tool_choice="any" if left else None))


class EveryToolOnceAgent(FunctionAgent):
    """The same for LlamaIndex, which has no middleware."""

    async def _get_response(self, current_llm_input, tools):
        blocks = [block for message in current_llm_input for block in message.blocks]
        called = {block.tool_name for block in blocks if isinstance(block, ToolCallBlock)}
        left = [tool for tool in tools if tool.metadata.name not in called]
        return await self.llm.achat_with_tools(left, chat_history=current_llm_input, tool_required=bool(left))


def expected(city):
    """What has to be called, and answered in the end."""
    degrees = PLACES[city]
    return [("get_weather", city), ("compute_number", degrees)], f"The result is {degrees * 9 // 5 + 32}."


@every_place
@each_way
@pytest.mark.slow_beyond(1)
def test_langchain_chains_two_tools(city, streaming):
    tools = Tools()
    agent = create_agent(
        ChatLlamaVision(provider="local", temperature=0),
        tools.described(StructuredTool.from_function),
        middleware=[EveryToolOnce()],
    )
    given = {"messages": [("user", f"Get weather for {city}.")]}
    if streaming:
        items = list(agent.stream(given, stream_mode=["messages", "values"]))
        messages = [item for mode, item in items if mode == "values"][-1]["messages"]
        shown = [
            item[0] for mode, item in items if mode == "messages" and isinstance(item[0], AIMessageChunk)
        ]
        assert "".join(chunk.text for chunk in shown) == messages[-1].text
    else:
        messages = agent.invoke(given)["messages"]
    assert (tools.calls, messages[-1].text) == expected(city)
    assert [message.type for message in messages] == ["human", "ai", "tool", "ai", "tool", "ai"]


@every_place
def test_llamaindex_chains_two_tools(city):
    tools = Tools()
    agent = EveryToolOnceAgent(
        tools=tools.described(FunctionTool.from_defaults),
        llm=LlamaVision(provider="local", temperature=0),
        streaming=False,
    )

    async def answered():
        return str(await agent.run(f"Get weather for {city}."))

    answer = asyncio.run(answered())
    assert (tools.calls, answer) == expected(city)


class ToolsOfThatName(ObjectRetriever):
    """Finds the tools whose noun the user says, as an index would; two definitions and two turns are too long a prompt."""

    def __init__(self, tools):
        self._tools = tools

    def retrieve(self, str_or_query_bundle):
        return [tool for tool in self._tools if tool.metadata.name.split("_")[1] in str_or_query_bundle]

    async def aretrieve(self, str_or_query_bundle):
        return self.retrieve(str_or_query_bundle)


@each_way
def test_llamaindex_calls_of_its_own_accord_in_each_turn_of_a_talk(streaming):
    tools = Tools()
    agent = FunctionAgent(
        tool_retriever=ToolsOfThatName(tools.described(FunctionTool.from_defaults)),
        llm=LlamaVision(provider="local", temperature=0),
        streaming=streaming,
    )
    shown = []

    async def talked():
        memory = ChatMemoryBuffer.from_defaults(token_limit=2048)
        for said in ("Get weather for Paris.", "Compute number for 20."):
            handler = agent.run(said, memory=memory)
            shown.append("")
            async for event in handler.stream_events():
                if isinstance(event, AgentStream):
                    shown[-1] += event.delta
            yield str(await handler)

    async def answers():
        return [answer async for answer in talked()]

    told = ["The temperature is 20.", "The result is 68."]
    assert asyncio.run(answers()) == told
    assert tools.calls == [("get_weather", "Paris"), ("compute_number", 20)]
    assert shown == (told if streaming else ["", ""])


@each_way
def test_langchain_calls_of_its_own_accord(streaming):
    tools = Tools()
    model = ChatLlamaVision(provider="local", temperature=0, streaming=streaming)
    agent = create_agent(model, tools.described(StructuredTool.from_function))
    messages = asyncio.run(agent.ainvoke({"messages": [("user", "Get weather for Paris.")]}))["messages"]
    assert tools.calls == [("get_weather", "Paris")]
    assert messages[-1].text == "The temperature is 20."


@pytest.mark.parametrize("strategy", [ToolStrategy, ProviderStrategy])
@each_way
def test_langchain_gets_an_object(strategy, streaming):
    model = ChatLlamaVision(provider="local", temperature=0, streaming=streaming)
    agent = create_agent(model, response_format=strategy(Place))
    state = agent.invoke({"messages": [("user", "Return JSON with city Oslo and number 7.")]})
    assert state["structured_response"] == Place(city="Oslo", number=7)
    assert sum(message.type == "ai" for message in state["messages"]) == 1


class Badge(BaseModel):
    """Get the badge"""

    id: UUID4
    colors: set[Literal["red", "blue"]] = Field(max_length=2)


@pytest.mark.parametrize("strategy", [ProviderStrategy, ToolStrategy])
def test_an_agents_answer_may_be_what_no_grammar_can_say(strategy):
    agent = create_agent(ChatLlamaVision(provider="local"), [], response_format=strategy(Badge))
    badge = agent.invoke({"messages": "Give JSON"})["structured_response"]
    assert isinstance(badge, Badge)
    assert badge.id.version == 4


def test_a_forced_tool_may_take_what_no_grammar_can_say_where_langchain_validates_it():
    model = ChatLlamaVision(provider="local")
    (call,) = model.bind_tools([Badge], tool_choice="any").invoke("Get the badge").tool_calls
    assert Badge.model_validate(call["args"]).id.version == 4
    for strict in (None, True):
        with pytest.raises(UnsupportedInputError, match="uuid4"):
            model.bind_tools([convert_to_openai_tool(Badge)], tool_choice="any", strict=strict).invoke("Hi")
    with pytest.raises(UnsupportedInputError, match="uuid4"):
        model.bind_tools([Badge], tool_choice="any", strict=True).invoke("Hi")
