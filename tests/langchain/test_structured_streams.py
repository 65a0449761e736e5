"""Objects that grow, and the messages that they came in."""

import asyncio
import json
from functools import reduce
from itertools import pairwise

import pytest
from langchain_core.messages import AIMessage
from pydantic import BaseModel

from tests.emulator import STALL, completion, event_stream
from tests.langchain.weather import (
    GOOD,
    QUESTION,
    SCHEMAS,
    Weather,
    WeatherDict,
    ask,
    called,
    every_style,
    model_at,
    name_of,
)


@pytest.mark.parametrize("style", ["invoke", "ainvoke", "batch", "abatch"])
def test_the_message_comes_with_the_object(emulator, style):
    emulator.script(called({}), called(GOOD))
    answer = ask(model_at(emulator).with_structured_output(Weather, include_raw=True), style)
    assert answer["parsed"] == Weather(**GOOD)
    assert answer["parsing_error"] is None
    assert isinstance(answer["raw"], AIMessage)
    assert answer["raw"].tool_calls[0]["args"] == GOOD
    assert answer["raw"].usage_metadata is not None


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_pieces_of_message_and_object_add_up(emulator, asynchronous):
    runnable = model_at(emulator).with_structured_output(WeatherDict, include_raw=True)

    async def collected():
        return [part async for part in runnable.astream(QUESTION)]

    emulator.script(*(completion(calls=[(name_of(runnable), args)]) for args in ({"city": "Rome"}, GOOD)))
    parts = asyncio.run(collected()) if asynchronous else list(runnable.stream(QUESTION))
    assert sum("raw" in part for part in parts) > 4
    total = reduce(lambda first, second: first + second, parts)
    assert (total["parsed"], total["parsing_error"]) == (GOOD, None)
    assert total["raw"].tool_calls[0]["args"] == GOOD  # of the second answer alone
    assert total["raw"].chunk_position == "last"


@every_style
def test_an_error_comes_with_the_message(emulator, style):
    emulator.script(completion("No."))
    runnable = model_at(emulator).with_structured_output(Weather, method="json_schema", include_raw=True)
    answer = ask(runnable, style)
    assert answer["parsed"] is None
    assert answer["parsing_error"].llm_output == "No."
    if style not in ("stream", "astream"):
        assert answer["raw"].text == "No."


LONG = {"city": "Clermont-Ferrand and all around it", "days": 3}


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("method", ["function_calling", "json_schema", "json_mode", "prompt"])
@pytest.mark.parametrize("schema", [WeatherDict, SCHEMAS["JSON schema"]], ids=["TypedDict", "JSON schema"])
def test_dictionaries_grow(emulator, asynchronous, method, schema):
    runnable = model_at(emulator).with_structured_output(schema, method=method)
    text = json.dumps(LONG)
    emulator.script(
        completion(calls=[(name_of(runnable), text)])
        if method == "function_calling"
        else completion(f"Here:\n{text}\nThat is all." if method == "prompt" else text)
    )

    async def collected():
        return [part async for part in runnable.astream(QUESTION)]

    parts = asyncio.run(collected()) if asynchronous else list(runnable.stream(QUESTION))
    cities = [part.get("city", "") for part in parts]
    assert len(set(cities)) > 2
    assert all(later.startswith(sooner) for sooner, later in pairwise(cities))
    assert parts[-1] == LONG
    assert parts.count(LONG) == 1


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_question_may_come_in_pieces_too(emulator, asynchronous):
    emulator.script(called(GOOD))
    runnable = model_at(emulator).with_structured_output(Weather)

    async def collected():
        async def pieces():
            for piece in ("The weather", " in Paris", "?"):
                yield piece

        return [part async for part in runnable.atransform(pieces())]

    if asynchronous:
        parts = asyncio.run(collected())
    else:
        parts = list(runnable.transform(iter(["The weather", " in Paris", "?"])))
    assert parts == [Weather(**GOOD)]
    assert emulator.requests[0].body["messages"][0]["content"] == "The weather in Paris?"


def test_a_long_answer_is_read_less_often_than_it_grows(emulator):
    whole = {"city": "more and " * 3000, "days": 3}
    emulator.script(completion(json.dumps(whole)))
    parts = list(model_at(emulator).with_structured_output(WeatherDict, method="prompt").stream(QUESTION))
    assert 500 < len(parts) < 1500
    assert parts[-1] == whole


@pytest.mark.parametrize("method", ["function_calling", "prompt"])
def test_instances_are_shown_as_soon_as_they_are_valid(emulator, method):
    class Report(BaseModel):
        city: str
        text: str = ""

    whole = {"city": "Paris", "text": "It will rain, and rain, and rain."}
    emulator.script(
        completion(calls=[("Report", whole)])
        if method == "function_calling"
        else completion(json.dumps(whole))
    )
    parts = list(model_at(emulator).with_structured_output(Report, method=method).stream(QUESTION))
    assert len(parts) > 2
    assert all(isinstance(part, Report) for part in parts)
    assert parts[-1] == Report(**whole)


def test_a_model_told_not_to_stream_gives_the_object_at_once(emulator):
    emulator.script(called(GOOD))
    model = model_at(emulator, disable_streaming=True)
    assert list(model.with_structured_output(Weather).stream(QUESTION)) == [Weather(**GOOD)]
    assert not emulator.requests[0].streamed


def test_leaving_a_stream_ends_the_request(emulator):
    begun = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in ('{"city": "Pa', "ris")]
    emulator.script(event_stream(*begun, STALL), event_stream(*begun, STALL))
    runnable = model_at(emulator).with_structured_output(WeatherDict, method="prompt")
    stream = runnable.stream(QUESTION)
    assert next(stream) == {"city": "Pa"}
    stream.close()
    assert emulator.wait_for_disconnect()

    async def leave():
        return [await anext(runnable.astream(QUESTION))]

    assert asyncio.run(leave()) == [{"city": "Pa"}]
    assert emulator.wait_for_disconnect(count=2)
