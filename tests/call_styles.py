"""Every way to ask a model: whole, streamed, sync, async, in batches, through both frameworks."""

import asyncio
import base64
from functools import reduce

from langchain_core.messages import HumanMessage
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock

from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision, LlamaVisionMultiModal


def _langchain_prompt(question, images):
    blocks = [
        {"type": "image", "base64": base64.b64encode(image).decode(), "mime_type": "image/png"}
        for image in images
    ]
    return [HumanMessage([*blocks, {"type": "text", "text": question}])]


def _from_langchain(message):
    calls = [(call["id"], call["name"], call["args"]) for call in message.tool_calls]
    usage = message.usage_metadata
    metadata = message.response_metadata
    return {
        "text": message.text,
        "calls": calls,
        "usage": (usage["input_tokens"], usage["output_tokens"]) if usage else None,
        "cost": metadata.get("cost_usd"),
        "end": metadata["finish_reason"],
        "model": metadata["model_name"],
    }


def _from_llamaindex(response):
    calls = response.message.additional_kwargs.get("tool_calls", [])
    blocks = [block for block in response.message.blocks if block.block_type == "tool_call"]
    assert [call["id"] for call in calls] == [block.tool_call_id for block in blocks]
    usage = response.raw["usage"]
    return {
        "text": response.message.content or "",
        "calls": [(block.tool_call_id, block.tool_name, block.tool_kwargs) for block in blocks],
        "usage": (usage["prompt_tokens"], usage["completion_tokens"]) if usage else None,
        "cost": response.additional_kwargs.get("cost_usd"),
        "end": response.raw["finish_reason"],
        "model": response.raw["model"],
    }


def _from_completion(response):
    usage = response.raw["usage"]
    return {
        "text": response.text,
        "usage": (usage["prompt_tokens"], usage["completion_tokens"]) if usage else None,
        "cost": response.additional_kwargs.get("cost_usd"),
        "end": response.raw["finish_reason"],
        "model": response.raw["model"],
    }


def langchain_styles(question, images, tools, **options):
    """Ask in all styles of LangChain; give {style: what was answered}."""
    model = ChatLlamaVision(**options)
    model = model.bind_tools(tools) if tools else model
    prompt = _langchain_prompt(question, images)

    async def streamed():
        return [chunk async for chunk in model.astream(prompt)]

    def merged(chunks):
        return reduce(lambda first, second: first + second, chunks)

    answers = {
        "invoke": model.invoke(prompt),
        "ainvoke": asyncio.run(model.ainvoke(prompt)),
        "stream": merged(model.stream(prompt)),
        "astream": merged(asyncio.run(streamed())),
        "batch": model.batch([prompt])[0],
        "abatch": asyncio.run(model.abatch([prompt]))[0],
        "invoke, streaming inside": ChatLlamaVision(streaming=True, **options).invoke(
            prompt, **(model.kwargs if tools else {})
        ),
    }
    return {f"langchain {style}": _from_langchain(message) for style, message in answers.items()}


def llamaindex_styles(question, images, tools, model_class=LlamaVision, **options):
    """Ask in all styles of LlamaIndex; give {style: what was answered}."""
    model = model_class(**options)
    message = ChatMessage(blocks=[*(ImageBlock(image=image) for image in images), TextBlock(text=question)])
    extra = {"tools": tools} if tools else {}

    async def asynchronous():
        return {
            "achat": await model.achat([message], **extra),
            "astream_chat": [item async for item in await model.astream_chat([message], **extra)][-1],
        }

    async def completions():
        by_name = {"image_documents": images, **extra}
        return {
            "acomplete": await model.acomplete(question, **by_name),
            "astream_complete": [item async for item in await model.astream_complete(question, **by_name)][
                -1
            ],
        }

    chats = {
        "chat": model.chat([message], **extra),
        "stream_chat": list(model.stream_chat([message], **extra))[-1],
        **asyncio.run(asynchronous()),
    }
    answers = {
        "complete": model.complete(question, image_documents=images, **extra),
        "stream_complete": list(model.stream_complete(question, image_documents=images, **extra))[-1],
        **asyncio.run(completions()),
    }
    name = model_class.__name__
    return {
        **{f"{name} {style}": _from_llamaindex(response) for style, response in chats.items()},
        **{f"{name} {style}": _from_completion(response) for style, response in answers.items()},
    }


def all_styles(question, images, tools=(), *, url=None, **options):
    """Ask in every style of both frameworks; give {style: what was answered}."""
    langchain = {"base_url": url} if url else {}
    llamaindex = {"api_base": url} if url else {}
    return {
        **langchain_styles(question, images, tools, **langchain, **options),
        **llamaindex_styles(question, images, tools, LlamaVision, **llamaindex, **options),
        **llamaindex_styles(question, images, tools, LlamaVisionMultiModal, **llamaindex, **options),
    }
