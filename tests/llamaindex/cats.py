"""Cats as structured output: a class, a prompt for it, every way to ask, and replies that are right."""

import asyncio

import pytest
from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel, Field

from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.llamaindex import LlamaVision
from tests.emulator import ACCOUNT_ID, completion

IMAGE = SAMPLE_IMAGES["circle"]
PROVIDERS = ["deepinfra", "openai-compatible", "cloudflare", "aigateway", "aimlapi"]
FORCES_TOOLS = {"deepinfra", "openai-compatible"}
TOM = '{"name": "Tom", "age": 3}'


class Cat(BaseModel):
    """A cat."""

    name: str
    age: int = Field(ge=0)


def new_prompt():
    """A prompt of its own for each use: LlamaIndex leaves its parser in those it has used."""
    return PromptTemplate("Describe the cat {name}.")


def model_at(emulator, provider="deepinfra", model_class=LlamaVision, **options):
    account = {"account_id": ACCOUNT_ID} if provider == "cloudflare" else {}
    name = {"model": "meta-llama/Llama-3.2-11B-Vision-Instruct"} if provider == "openai-compatible" else {}
    return model_class(
        provider=provider,
        api_base=emulator.base_url,
        api_key=emulator.api_key,
        max_retries=0,
        **account,
        **name,
        **options,
    )


def predict(model, way, output_cls=Cat, prompt=None, llm_kwargs=None, **arguments):
    """Ask in one of the `WAYS`, and give all objects that come."""

    async def astream():
        stream = await model.astream_structured_predict(output_cls, prompt, llm_kwargs, **arguments)
        return [item async for item in stream]

    arguments = arguments or {"name": "Tom"}
    prompt = prompt or new_prompt()
    match way:
        case "whole":
            return [model.structured_predict(output_cls, prompt, llm_kwargs, **arguments)]
        case "awhole":
            return [
                asyncio.run(model.astructured_predict(output_cls, prompt, llm_kwargs, **arguments)),
            ]
        case "stream":
            return list(model.stream_structured_predict(output_cls, prompt, llm_kwargs, **arguments))
        case _:
            return asyncio.run(astream())


def called(arguments, **more):
    """A reply that calls the tool of the class."""
    return completion(calls=[("Cat", arguments)], **more)


def good(provider, text=TOM):
    """A good reply to `auto`: a call where the provider can be made to give one, else words."""
    return called(text) if provider in FORCES_TOOLS else completion(f"Here it is:\n```json\n{text}\n```")


WAYS = ["whole", "awhole", "stream", "astream"]
IN_EVERY_WAY = pytest.mark.parametrize("way", WAYS)
AT_EVERY_PROVIDER = pytest.mark.parametrize("provider", PROVIDERS)
