"""One question about the weather, asked for as an object in any style."""

import asyncio
import json
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.utils.function_calling import convert_to_json_schema
from pydantic import BaseModel
from pydantic.v1 import BaseModel as BaseModelV1

from llama_vision.langchain import ChatLlamaVision
from tests.emulator import ACCOUNT_ID, completion

QUESTION = "The weather in Paris for 3 days?"
GOOD = {"city": "Paris", "days": 3}
GOOD_TEXT = json.dumps(GOOD)
STYLES = ("invoke", "ainvoke", "stream", "astream", "batch", "abatch")


class Weather(BaseModel):
    """The weather of a place."""

    city: str
    days: int


class WeatherV1(BaseModelV1):
    """The weather of a place."""

    city: str
    days: int


class WeatherDict(TypedDict):
    """The weather of a place."""

    city: Annotated[str, ..., "Where"]
    days: int


SCHEMAS: dict[str, Any] = {
    "pydantic": Weather,
    "pydantic v1": WeatherV1,
    "TypedDict": WeatherDict,
    "JSON schema": convert_to_json_schema(Weather),
    "JSON schema without a title": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
    },
    "OpenAI's function": {
        "name": "Weather",
        "description": "The weather of a place.",
        "parameters": Weather.model_json_schema(),
    },
    "OpenAI's format": {"name": "Weather", "schema": Weather.model_json_schema()},
}
every_schema = pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
every_style = pytest.mark.parametrize("style", STYLES)


def model_at(emulator, provider="deepinfra", **options):
    """A model at an emulator."""
    account = {"account_id": ACCOUNT_ID} if provider.startswith("cloudflare") else {}
    name = {"model": "meta-llama/Llama-3.2-11B-Vision-Instruct"} if provider == "openai-compatible" else {}
    return ChatLlamaVision(
        provider=provider,
        base_url=emulator.base_url,
        api_key=emulator.api_key,
        **{"max_retries": 0, **account, **name, **options},
    )


def called(arguments, **more):
    """A reply that calls the tool for the weather."""
    return completion(calls=[("Weather", arguments)], **more)


def name_of(runnable):
    """The name that the schema is sent with."""
    return runnable.plan.schema.name


def plain(answer):
    """The fields of an answer of any kind."""
    return (
        answer
        if isinstance(answer, dict)
        else answer.dict()
        if isinstance(answer, BaseModelV1)
        else dict(answer)
    )


def ask(runnable, style, question=QUESTION):
    """Ask in one of the `STYLES`, and give the answer, of a stream its end."""

    async def last():
        return [part async for part in runnable.astream(question)][-1]

    match style:
        case "invoke":
            return runnable.invoke(question)
        case "stream":
            return list(runnable.stream(question))[-1]
        case "batch":
            return runnable.batch([question])[0]
        case "ainvoke":
            return asyncio.run(runnable.ainvoke(question))
        case "astream":
            return asyncio.run(last())
        case _:
            return asyncio.run(runnable.abatch([question]))[0]
