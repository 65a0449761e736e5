"""Asks one neutral question through either adapter, in any style, and tells the answer in neutral words."""

import asyncio
import base64
from dataclasses import dataclass
from functools import reduce
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock, ToolCallBlock

from llama_vision import Message, Text, ToolCall, ToolResult
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision
from tests.emulator import ACCOUNT_ID, Emulator

STYLES = ("whole", "stream", "awhole", "astream")


@dataclass(frozen=True)
class Answer:
    """What came back."""

    text: str
    calls: list[tuple[str, dict[str, Any]]]
    call_ids: list[str | None]
    tokens: tuple[int, int] | None
    cost: float | None
    cost_is_estimate: bool | None
    end: str
    model: str
    deltas: list[str]
    """The words as they came; all at once where they were not streamed."""
    raw: Any
    """The framework's own message or response."""


def _address(emulator: Emulator | None, name: str) -> dict[str, str | None]:
    """Where to ask, under the adapter's name for it; the model on this machine has no address."""
    return {name: emulator.base_url, "api_key": emulator.api_key} if emulator else {}


def _account(provider: str) -> dict[str, str]:
    return {"account_id": ACCOUNT_ID} if provider.startswith("cloudflare") else {}


def _model_name(provider: str) -> dict[str, str]:
    # The emulated DeepInfra knows its own ids, and an endpoint of someone's own has whatever names it has.
    return {"model": "meta-llama/Llama-3.2-11B-Vision-Instruct"} if provider == "openai-compatible" else {}


class LangChain:
    """Through `ChatLlamaVision`."""

    def ask(
        self, emulator: Emulator | None, provider: str, style: str, messages: list[Any], **options: Any
    ) -> Answer:
        names = ("tools", "tool_choice", "parallel_tool_calls")
        call = {name: options.pop(name) for name in names if name in options}
        model = ChatLlamaVision(
            provider=provider,
            **{**_address(emulator, "base_url"), **_account(provider), **_model_name(provider), **options},
        )
        prompt = [self._message(message) for message in messages]

        async def streamed() -> list[Any]:
            return [chunk async for chunk in model.astream(prompt, **call)]

        match style:
            case "whole":
                chunks = [model.invoke(prompt, **call)]
            case "awhole":
                chunks = [asyncio.run(model.ainvoke(prompt, **call))]
            case _:
                chunks = list(model.stream(prompt, **call)) if style == "stream" else asyncio.run(streamed())
        message = reduce(lambda first, second: first + second, chunks)
        usage, metadata = message.usage_metadata, message.response_metadata
        return Answer(
            text=message.text,
            calls=[(call["name"], call["args"]) for call in message.tool_calls],
            call_ids=[call["id"] for call in message.tool_calls],
            tokens=(usage["input_tokens"], usage["output_tokens"]) if usage else None,
            cost=metadata.get("cost_usd"),
            cost_is_estimate=metadata.get("cost_is_estimate"),
            end=metadata["finish_reason"],
            model=metadata["model_name"],
            deltas=[chunk.text for chunk in chunks],
            raw=message,
        )

    def _message(self, message: Any) -> Any:
        if not isinstance(message, Message):
            return message
        match message.role:
            case "system":
                return SystemMessage(message.text)
            case "tool":
                (result,) = message.parts
                assert isinstance(result, ToolResult)
                return ToolMessage("".join(part.text for part in result.parts), tool_call_id=result.call_id)
            case "assistant":
                calls = [part for part in message.parts if isinstance(part, ToolCall)]
                return AIMessage(
                    message.text,
                    tool_calls=[{"id": call.id, "name": call.name, "args": call.parsed()} for call in calls],
                )
            case _:
                return HumanMessage([self._block(part) for part in message.parts])

    def _block(self, part: Any) -> dict[str, Any]:
        if isinstance(part, Text):
            return {"type": "text", "text": part.text}
        if part.url:
            return {"type": "image", "url": part.url}
        return {"type": "image", "base64": base64.b64encode(part.data).decode(), "mime_type": part.media_type}


class LlamaIndex:
    """Through `LlamaVision`."""

    def ask(
        self, emulator: Emulator | None, provider: str, style: str, messages: list[Any], **options: Any
    ) -> Answer:
        names = ("tools", "tool_choice", "parallel_tool_calls", "stop")
        call = {name: options.pop(name) for name in names if name in options}
        model = LlamaVision(
            provider=provider,
            **{**_address(emulator, "api_base"), **_account(provider), **_model_name(provider), **options},
        )
        prompt = [self._message(message) for message in messages]

        async def streamed() -> list[Any]:
            return [item async for item in await model.astream_chat(prompt, **call)]

        match style:
            case "whole":
                responses = [model.chat(prompt, **call)]
            case "awhole":
                responses = [asyncio.run(model.achat(prompt, **call))]
            case "stream":
                responses = list(model.stream_chat(prompt, **call))
            case _:
                responses = asyncio.run(streamed())
        response = responses[-1]
        blocks = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
        usage = response.raw["usage"]
        return Answer(
            text=response.message.content or "",
            calls=[(block.tool_name, block.tool_kwargs) for block in blocks],
            call_ids=[block.tool_call_id for block in blocks],
            tokens=(usage["prompt_tokens"], usage["completion_tokens"]) if usage else None,
            cost=response.additional_kwargs.get("cost_usd"),
            cost_is_estimate=response.additional_kwargs.get("cost_is_estimate"),
            end=response.raw["finish_reason"],
            model=response.raw["model"],
            deltas=[each.message.content or "" if each.delta is None else each.delta for each in responses],
            raw=response,
        )

    def _message(self, message: Any) -> ChatMessage:
        if not isinstance(message, Message):
            return message
        additional = {}
        blocks: list[Any] = []
        for part in message.parts:
            match part:
                case Text():
                    blocks.append(TextBlock(text=part.text))
                case ToolCall():
                    blocks.append(
                        ToolCallBlock(tool_call_id=part.id, tool_name=part.name, tool_kwargs=part.parsed())
                    )
                case ToolResult():
                    additional["tool_call_id"] = part.call_id
                    blocks += [TextBlock(text=inner.text) for inner in part.parts]
                case _:
                    blocks.append(ImageBlock(image=part.data, url=part.url))
        return ChatMessage(role=message.role, blocks=blocks, additional_kwargs=additional)


ADAPTERS = {"langchain": LangChain(), "llamaindex": LlamaIndex()}
