"""Tool calls whose arguments were cut off or can't be read never run, and are never lost in silence."""

import asyncio

import pytest
from llama_index.core.agent.workflow import AgentStream, AgentWorkflow, FunctionAgent
from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.tools import FunctionTool

from llama_vision import LlamaVisionError
from llama_vision.core.errors import UnsupportedInputError
from llama_vision.llamaindex import LlamaVision, ToolArgumentsError
from tests.emulator import HANG_UP, chunks, completion, event_stream

CUT = '{"path": "/home", "names": ["a'
LISTED = '["/home"]'
UNREADABLE = {
    "cut off": (CUT, "length", "get_names.*raise max_tokens"),
    "cut off before their begin": ("", "length", "get_names.*raise max_tokens"),
    "a list": (LISTED, "tool_calls", "get_names.*not a JSON object"),
    "no JSON": ('{"path": /home}', "tool_calls", "get_names.*not a JSON object"),
    "cut off, and nobody says so": (CUT, "tool_calls", "get_names.*larger max_tokens"),
}
# LlamaIndex's workflows look at all attributes of an agent, those that pydantic gave up among them.
AGENTS = pytest.mark.filterwarnings("ignore::DeprecationWarning")
EACH = pytest.mark.parametrize("name", UNREADABLE)


class Recorder:
    """Tools that remember what they were called with."""

    def __init__(self):
        self.calls = []
        self.tools = [
            FunctionTool.from_defaults(self.get_names),
            FunctionTool.from_defaults(self.get_time),
        ]

    def get_names(self, path: str = "", names: list[str] | None = None) -> str:
        """Get the names of files."""
        self.calls.append((path, names))
        return "a, b"

    def get_time(self) -> str:
        """Get the time."""
        self.calls.append("time")
        return "noon"


def model_at(emulator, **options):
    return LlamaVision(
        provider="deepinfra",
        api_base=emulator.base_url,
        api_key=emulator.api_key,
        max_retries=0,
        **options,
    )


def unreadable(name, *, before=()):
    arguments, finish_reason, _ = UNREADABLE[name]
    return completion(calls=[*before, ("get_names", arguments)], finish_reason=finish_reason)


def responses_of(model, tools, way):
    async def asynchronous():
        if way == "awhole":
            return [await model.achat_with_tools(tools, "Look.")]
        stream = await model.astream_chat_with_tools(tools, "Look.")
        return [response async for response in stream]

    match way:
        case "whole":
            return [model.chat_with_tools(tools, "Look.")]
        case "stream":
            return list(model.stream_chat_with_tools(tools, "Look."))
        case _:
            return asyncio.run(asynchronous())


@EACH
@pytest.mark.parametrize("way", ["whole", "stream", "awhole", "astream"])
@pytest.mark.parametrize("demanding", [True, False])
def test_a_whole_response_with_unreadable_arguments_has_no_selection(emulator_of, name, way, demanding):
    emulator = emulator_of("deepinfra")
    emulator.script(unreadable(name))
    model = model_at(emulator)
    last = responses_of(model, Recorder().tools, way)[-1]
    (block,) = [block for block in last.message.blocks if isinstance(block, ToolCallBlock)]
    assert block.tool_kwargs == UNREADABLE[name][0]
    with pytest.raises(ToolArgumentsError, match=UNREADABLE[name][2]) as caught:
        model.get_tool_calls_from_response(last, error_on_no_tool_call=demanding)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, LlamaVisionError)
    assert "[deepinfra, " in str(caught.value)


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_arguments_that_are_on_their_way_are_shown(emulator_of, way):
    emulator = emulator_of("deepinfra")
    emulator.script(unreadable("cut off"))
    model = model_at(emulator)
    *under_way, _ = responses_of(model, Recorder().tools, way)
    seen = [model.get_tool_calls_from_response(response)[0].tool_kwargs for response in under_way]
    assert seen[0] == {}
    assert seen[-1] == {"path": "/home", "names": ["a"]}
    paths = [arguments["path"] for arguments in seen if "path" in arguments]
    assert paths == sorted(paths, key=len)


@pytest.mark.parametrize("way", ["whole", "stream"])
def test_a_call_that_needs_no_arguments_has_none(emulator_of, way):
    emulator = emulator_of("deepinfra")
    emulator.script(completion(calls=[("get_time", "")]))
    model = model_at(emulator)
    last = responses_of(model, Recorder().tools, way)[-1]
    (selection,) = model.get_tool_calls_from_response(last)
    assert (selection.tool_name, selection.tool_kwargs) == ("get_time", {})


@pytest.mark.parametrize("way", ["whole", "stream"])
def test_a_call_that_was_whole_when_the_reply_was_cut_counts(emulator_of, way):
    emulator = emulator_of("deepinfra")
    emulator.script(completion(calls=[("get_names", {"path": "/"})], finish_reason="length"))
    model = model_at(emulator)
    (selection,) = model.get_tool_calls_from_response(responses_of(model, Recorder().tools, way)[-1])
    assert selection.tool_kwargs == {"path": "/"}


@EACH
def test_predict_and_call_calls_nothing(emulator_of, name):
    emulator = emulator_of("deepinfra")
    emulator.script(*[unreadable(name)] * 2)
    model, recorder = model_at(emulator), Recorder()
    with pytest.raises(ToolArgumentsError, match=UNREADABLE[name][2]):
        model.predict_and_call(recorder.tools, "Look.")
    with pytest.raises(ToolArgumentsError, match=UNREADABLE[name][2]):
        asyncio.run(model.apredict_and_call(recorder.tools, "Look."))
    assert recorder.calls == []


def agent_of(model, recorder, streaming):
    return FunctionAgent(name="reader", tools=recorder.tools, llm=model, streaming=streaming)


@AGENTS
@EACH
@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("workflow", [True, False])
async def test_an_agent_stops_with_the_error_and_calls_nothing(emulator_of, name, streaming, workflow):
    emulator = emulator_of("deepinfra")
    emulator.script(unreadable(name, before=[("get_time", {})]))
    recorder = Recorder()
    agent = agent_of(model_at(emulator), recorder, streaming)
    runner = AgentWorkflow(agents=[agent]) if workflow else agent
    with pytest.raises(ToolArgumentsError, match=UNREADABLE[name][2]):
        await runner.run("Look.")
    assert recorder.calls == []
    assert len(emulator.requests) == 1


@AGENTS
@pytest.mark.parametrize("streaming", [True, False])
async def test_an_agent_runs_whole_calls_and_shows_them_as_they_come(emulator_of, streaming):
    emulator = emulator_of("deepinfra")
    calls = [("get_names", {"path": "/home", "names": ["a"]}), ("get_time", {})]
    emulator.script(completion(calls=calls), completion("They are a and b."))
    recorder = Recorder()
    handler = agent_of(model_at(emulator), recorder, streaming).run("Look.")
    shown = [event async for event in handler.stream_events() if isinstance(event, AgentStream)]
    output = await handler
    assert output.response.content == "They are a and b."
    assert sorted(recorder.calls, key=str) == [("/home", ["a"]), "time"]
    partial = [event.tool_calls[0].tool_kwargs for event in shown if event.tool_calls]
    assert ({"path": "/home", "names": ["a"]} in partial) is streaming


@AGENTS
async def test_an_agent_stops_where_a_stream_breaks_in_a_call(emulator_of):
    emulator = emulator_of("deepinfra")
    *begin, _ = chunks(completion(calls=[("get_names", CUT)]))
    emulator.script(event_stream(*begin, HANG_UP))
    recorder = Recorder()
    with pytest.raises(LlamaVisionError):
        await agent_of(model_at(emulator), recorder, True).run("Look.")
    assert recorder.calls == []


@pytest.mark.parametrize("provider", ["cloudflare", "aigateway", "aimlapi"])
def test_every_model_calls_functions_unless_it_has_no_tools_and_words_are_not_wanted(provider):
    assert LlamaVision(provider=provider).metadata.is_function_calling_model
    model = LlamaVision(provider=provider, text_tool_calls=False)
    assert model.metadata.is_function_calling_model is (provider != "aimlapi")


def test_tools_go_into_words_unless_the_field_forbids_it(emulator_of):
    emulator = emulator_of("aimlapi")
    at = {"provider": "aimlapi", "api_base": emulator.base_url, "api_key": emulator.api_key}
    LlamaVision(**at).chat_with_tools(Recorder().tools, "When?")
    (request,) = emulator.requests
    assert "get_time" in request.body["messages"][-1]["content"]
    with pytest.raises(UnsupportedInputError, match="takes no tools"):
        LlamaVision(text_tool_calls=False, **at).chat_with_tools(Recorder().tools, "When?")
    LlamaVision(text_tool_calls=False, **at).chat_with_tools(Recorder().tools, "When?", text_tool_calls=True)
    assert len(emulator.requests) == 2


@pytest.mark.parametrize("provider", ["aigateway", "aimlapi"])
def test_one_call_at_a_time_is_asked_for_in_words_where_there_is_no_field(emulator_of, provider):
    emulator = emulator_of(provider)
    model = LlamaVision(provider=provider, api_base=emulator.base_url, api_key=emulator.api_key)
    emulator.script(*[completion('{"name": "get_time", "parameters": {}}')] * 2)
    for several in (False, True):
        model.chat_with_tools(
            Recorder().tools, "When?", tool_required=True, allow_parallel_tool_calls=several
        )
    one, more = (request.body["messages"][-1]["content"] for request in emulator.requests)
    assert "at most one" in one
    assert "at most one" not in more
