"""Structured output through LlamaIndex's own parts: programs, structured LLMs, agents."""

import asyncio
import json

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.program import FunctionCallingProgram
from llama_index.core.program.function_program import get_function_tool
from llama_index.core.program.utils import get_program_for_llm
from llama_index.core.types import PydanticProgramMode

from llama_vision.llamaindex import LlamaVision, LlamaVisionMultiModal, StructuredOutputError
from tests.emulator import completion
from tests.llamaindex.cats import (
    AT_EVERY_PROVIDER,
    FORCES_TOOLS,
    IMAGE,
    IN_EVERY_WAY,
    TOM,
    Cat,
    called,
    good,
    model_at,
    new_prompt,
    predict,
)


@pytest.mark.parametrize("model_class", [LlamaVision, LlamaVisionMultiModal])
@AT_EVERY_PROVIDER
@pytest.mark.filterwarnings("ignore:The `json` method is deprecated")  # LlamaIndex's, in its streams
def test_a_structured_llm_answers_in_all_its_ways(emulator_of, provider, model_class):
    emulator = emulator_of(provider)
    emulator.always(good(provider))
    llm = model_at(emulator, provider, model_class).as_structured_llm(Cat)
    messages = [ChatMessage(blocks=[ImageBlock(path=IMAGE), TextBlock(text='Fill in {"name": ...}')])]

    async def asynchronous():
        return [
            await llm.achat(messages),
            [item async for item in await llm.astream_chat(messages)][-1],
            await llm.acomplete("Describe Tom"),
        ]

    responses = [
        llm.chat(messages),
        list(llm.stream_chat(messages))[-1],
        llm.complete("Describe Tom"),
        *asyncio.run(asynchronous()),
    ]
    assert [response.raw for response in responses] == [Cat(name="Tom", age=3)] * 6
    assert [len(request.images) for request in emulator.requests] == [1, 1, 0, 1, 1, 0]
    assert all("Fill in" in json.dumps(request.body) for request in emulator.requests if request.images)


def run_program(program, way, **options):
    async def astream():
        return [item async for item in await program.astream_call(name="Tom", **options)]

    match way:
        case "whole":
            return [program(name="Tom", **options)]
        case "awhole":
            return [asyncio.run(program.acall(name="Tom", **options))]
        case "stream":
            return list(program.stream_call(name="Tom", **options))
        case _:
            return asyncio.run(astream())


@pytest.mark.parametrize("positional", [True, False])
def test_llamaindexs_flags_are_no_options_of_the_call(emulator_of, positional):
    emulator = emulator_of("deepinfra")
    emulator.always(good("deepinfra"))
    tools, model = [get_function_tool(Cat)], model_at(emulator, "deepinfra")
    flags = {"error_on_no_tool_call": False, "error_on_tool_error": True}
    args, kwargs = ((None, False, False, *flags.values()), {}) if positional else ((), flags)
    outputs = [
        model.predict_and_call(tools, "Describe Tom", *args, **kwargs),
        asyncio.run(model.apredict_and_call(tools, "Describe Tom", *args, **kwargs)),
    ]
    assert [output.sources[0].raw_output for output in outputs] == [Cat(name="Tom", age=3)] * 2
    assert not any(flag in request.body for request in emulator.requests for flag in flags)


@AT_EVERY_PROVIDER
@IN_EVERY_WAY
def test_programs_that_llamaindex_makes_ask_in_the_same_way(emulator_of, provider, way):
    emulator = emulator_of(provider)
    emulator.script(good(provider))
    model = model_at(emulator, provider, system_prompt="Be kind.")
    program = get_program_for_llm(Cat, new_prompt(), model)
    found = run_program(program, way, llm_kwargs={"max_tokens": 77})
    assert found[-1] == Cat(name="Tom", age=3)
    (request,) = emulator.requests
    assert request.body["max_tokens"] == 77
    assert [message["role"] for message in request.body["messages"]] == ["system", "user"]
    assert request.body.get("tool_choice") == ("required" if provider in FORCES_TOOLS else None)
    assert request.streamed is (way in ("stream", "astream"))
    assert len(found) > 1 or way in ("whole", "awhole")


@pytest.mark.parametrize("provider", ["deepinfra", "cloudflare"])
@pytest.mark.parametrize("way", ["whole", "awhole"])
def test_programs_ask_again_too(emulator_of, provider, way):
    emulator = emulator_of(provider)
    emulator.script(completion("No."), good(provider))
    program = get_program_for_llm(Cat, new_prompt(), model_at(emulator, provider))
    assert run_program(program, way) == [Cat(name="Tom", age=3)]
    assert len(emulator.requests) == 2


@IN_EVERY_WAY
def test_programs_fail_where_the_answer_was_cut_off(emulator_of, way):
    emulator = emulator_of("deepinfra")
    emulator.script(called('{"name": "Tom", "ag', finish_reason="length"))
    program = get_program_for_llm(Cat, new_prompt(), model_at(emulator))
    with pytest.raises(StructuredOutputError, match="raise max_tokens"):
        run_program(program, way)


@IN_EVERY_WAY
def test_a_program_for_several_objects_is_left_to_llamaindex_and_its_tool_is_forced(emulator_of, way):
    emulator = emulator_of("openai-compatible")
    emulator.script(completion(calls=[("Cat", TOM), ("Cat", '{"name": "Tim", "age": 4}')]))
    program = FunctionCallingProgram.from_defaults(
        Cat, prompt=new_prompt(), llm=model_at(emulator, "openai-compatible"), allow_parallel_tool_calls=True
    )
    assert run_program(program, way)[-1] == [Cat(name="Tom", age=3), Cat(name="Tim", age=4)]
    assert emulator.requests[0].body["tool_choice"] == "required"
    assert "parallel_tool_calls" not in emulator.requests[0].body


@IN_EVERY_WAY
def test_the_function_mode_is_llamaindexs_own_and_its_tool_is_forced(emulator_of, way):
    emulator = emulator_of("deepinfra")
    emulator.script(called(TOM))
    model = model_at(
        emulator,
        pydantic_program_mode=PydanticProgramMode.FUNCTION,
        structured_output="json_schema",
        system_prompt="Be kind.",
    )
    assert predict(model, way)[-1] == Cat(name="Tom", age=3)
    (request,) = emulator.requests
    assert request.body["tool_choice"] == "required"
    assert "response_format" not in request.body
    assert request.body["messages"][0] == {"role": "system", "content": "Be kind."}


@IN_EVERY_WAY
def test_the_llm_mode_is_llamaindexs_own(emulator_of, way):
    emulator = emulator_of("deepinfra")
    emulator.script(completion(TOM))
    model = model_at(emulator, pydantic_program_mode=PydanticProgramMode.LLM)
    assert predict(model, way)[-1] == Cat(name="Tom", age=3)
    assert "Here's a JSON schema to follow" in emulator.requests[0].body["messages"][0]["content"]


def test_a_model_that_takes_no_tools_at_all_still_gives_objects(emulator_of):
    emulator = emulator_of("aimlapi")
    emulator.script(*[completion(TOM)] * 2)
    model = model_at(emulator, "aimlapi", text_tool_calls=False)
    assert predict(model, "whole") == [Cat(name="Tom", age=3)]
    assert run_program(get_program_for_llm(Cat, new_prompt(), model), "whole") == [Cat(name="Tom", age=3)]


# LlamaIndex's workflows look at all attributes of an agent, those that pydantic gave up among them.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_an_agents_answer_is_an_object(emulator_of):
    emulator = emulator_of("cloudflare")
    emulator.script(completion("Tom is three."), completion("Hm."), completion(TOM))
    agent = FunctionAgent(tools=[], llm=model_at(emulator, "cloudflare"), output_cls=Cat)
    output = await agent.run("How old is Tom?")
    assert output.structured_response == {"name": "Tom", "age": 3}
    assert "Tom is three." in json.dumps(emulator.requests[1].body)
