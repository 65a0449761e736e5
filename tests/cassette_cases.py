"""What is asked in each cassette, and how both frameworks ask it."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from langchain_core.messages import convert_to_messages
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock

from llama_vision.core.errors import ContextTooLongError, QuotaExhaustedError, RateLimitError, StreamError
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision
from tests.emulator import ACCOUNT_ID, Answer, Emulator, event_stream, json_answer

ROOT = Path(__file__).resolve().parents[1]
IMAGE = (ROOT / "src/llama_vision/demo/images/circle.png").read_bytes()
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Its name."}},
            "required": ["city"],
        },
    },
}


_STORY = (
    ("user", "Write a story about a cat."),
)  # asked by LangChain's standard suite, see tests/langchain/standard
_LAMB = (
    "Bonjour! Let me tell you, my friend, cooking lamb is an art form, and I'm more than happy to share with you not two, "
    "but three of my favorite techniques to coax out the rich, unctuous flavors and tender textures of this majestic "
    'protein. First, we have the classic "Sous Vide" method. Next, we have the ancient art of "Sous le Sable". And finally, '
    'we have the more modern technique of "Hot Smoking."'
)


@dataclass(frozen=True)
class Case:
    """One call.

    Attributes:
        provider: Whose.
        turns: Role and words; the image stands before the words of the last.
        image: Shown with the last turn.
        streamed: Whether the answer comes piece by piece.
        batched: Whether it is asked through the batch API.
        options: Of the call.
        error: What it ends in, if not in an answer.
        refused: Status and words of the refusal that the emulator is told to give.
        scripted: What else the emulator is told to send: what public reports say of real servers.
    """

    provider: str
    turns: tuple[tuple[str, str], ...]
    image: bytes | None = None
    streamed: bool = False
    batched: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    error: type[Exception] | None = None
    refused: tuple[int, str] | None = None
    scripted: Answer | None = None


def _chunk(delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
    """Write a chunk of a stream; `logprobs` and `error` belong to its choice."""
    choice = {name: more.pop(name) for name in ("logprobs", "error") if name in more}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason, **choice}], **more}


def _fragment(call_id: str | None, arguments: str, **function: str) -> dict[str, Any]:
    """Write a fragment of the tool call at index 0."""
    return {"tool_calls": [{"index": 0, "id": call_id, "function": {**function, "arguments": arguments}}]}


_HEARTBEATS = event_stream(
    _chunk({"content": "Still"}),
    b"data:\n\n",
    b"data: null\n\n",
    b"event: heartbeat\ndata: ping\n\n",
    _chunk({"content": " here"}),
    _chunk({}, "stop", usage={"prompt_tokens": 15, "completion_tokens": 3}),
    b"data:  [DONE] \n\n",
)
_FRAGMENTS = event_stream(
    _chunk(_fragment("call_1", "", name="get_")),
    _chunk(_fragment(None, "", name="weather")),
    _chunk(_fragment("null", '{"city":')),
    _chunk(_fragment("call_2", '"Paris"}')),
    _chunk({}, "tool_calls", usage={"prompt_tokens": 30, "completion_tokens": 9}),
    "[DONE]",
)
_DETAILS = {
    "service_tier": "flex",
    "system_fingerprint": "fp_44709d6fcb",
    "usage": {
        "prompt_tokens": 1616,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 0, "image_tokens": 1601},
        "completion_tokens_details": {"reasoning_tokens": 3},
    },
}
_HI = {"token": "Hi", "logprob": -0.25, "bytes": [72, 105], "top_logprobs": []}
_WITH_DETAILS = json_answer(
    {
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi", "reasoning_content": "A greeting."},
                "logprobs": {"content": [_HI]},
                "finish_reason": "stop",
            }
        ],
        **_DETAILS,
    }
)
_WITH_DETAILS_STREAMED = event_stream(
    _chunk({"content": None, "reasoning_content": "A "}),
    _chunk({"content": None, "reasoning_content": "greeting."}),
    _chunk({"content": "Hi"}, logprobs={"content": [_HI]}),
    _chunk({}, "stop", **_DETAILS),
    "[DONE]",
)
_BROKEN_OFF = event_stream(
    _chunk({"content": "A circle, and"}),
    _chunk({}, "error", error={"code": 502, "message": "upstream overloaded"}),
    "[DONE]",
)
_OUT_OF_QUOTA = json_answer(
    {
        "error": {
            "message": "You exceeded your current quota, please check your plan and billing details.",
            "type": "insufficient_quota",
            "param": None,
            "code": "insufficient_quota",
        }
    },
    429,
)


def _asks(*words: str) -> tuple[tuple[str, str], ...]:
    return tuple(("user", text) for text in words)


# The emulators' cassettes have folders of their own, since their requests went to this machine and not to the provider.
CASES = {
    ("deepinfra", "hello"): Case("deepinfra", _asks("Hello!")),
    ("deepinfra", "hello_streamed"): Case("deepinfra", _asks("Hello!"), streamed=True),
    ("deepinfra", "conversation"): Case(
        "deepinfra",
        (
            ("system", "Respond like a michelin starred chef."),
            ("user", "Can you name at least two different techniques to cook lamb?"),
            (
                "assistant",
                _LAMB,
            ),
            ("user", "Tell me more about the second method."),
        ),
    ),
    ("aimlapi", "hello_11b"): Case("aimlapi", _asks("Hello")),
    ("aimlapi", "hello_90b"): Case("aimlapi", _asks("Hello"), options={"model": "llama-3.2-90b-vision"}),
    ("aigateway", "hello"): Case(
        "aigateway",
        (("system", "You are a helpful assistant."), ("user", "Hello!")),
        options={"temperature": 0.7, "top_p": 0.95},
    ),
    ("aigateway", "hello_streamed"): Case("aigateway", _asks("hello"), streamed=True),
    ("cloudflare", "hello_world"): Case("cloudflare", _asks("Where did the phrase Hello World come from")),
    ("cloudflare", "new_york_streamed"): Case("cloudflare", _asks("where is new york?"), streamed=True),
    ("cloudflare-openai", "hello_streamed"): Case(
        "cloudflare-openai",
        (("system", "You are concise."), ("user", "Reply exactly with: Hello!")),
        streamed=True,
        # Who answered in the recording, and says so in each chunk.
        options={"model": "@cf/meta/llama-3.1-8b-instruct", "max_tokens": 40, "temperature": 0},
    ),
    ("emulator-deepinfra", "image"): Case("deepinfra", _asks("What is in this picture?"), IMAGE),
    ("emulator-deepinfra", "image_streamed"): Case(
        "deepinfra", _asks("What is in this picture?"), IMAGE, streamed=True
    ),
    ("emulator-deepinfra", "batch"): Case(
        "deepinfra", _asks("What is in this picture?"), IMAGE, batched=True
    ),
    ("emulator-aigateway", "batch"): Case(
        "aigateway", _asks("What is in this picture?"), IMAGE, batched=True
    ),
    ("emulator-deepinfra", "tool_call"): Case(
        "deepinfra", _asks("What is the weather in Paris?"), options={"tools": [WEATHER]}
    ),
    ("emulator-deepinfra", "rate_limited"): Case(
        "deepinfra",
        _asks("Hello!"),
        error=RateLimitError,
        refused=(429, "Model busy, retry later"),
    ),
    # With a 500, see `llama_vision.dialects.error_bodies`.
    ("emulator-deepinfra", "too_long"): Case(
        "deepinfra",
        _asks("Hello!"),
        error=ContextTooLongError,
        refused=(500, "This model's maximum context length is 131072 tokens."),
    ),
    ("emulator-openai-compatible", "heartbeats_streamed"): Case(
        "openai-compatible", _asks("Hello!"), streamed=True, scripted=_HEARTBEATS
    ),
    ("emulator-openai-compatible", "fragments_streamed"): Case(
        "openai-compatible",
        _asks("What is the weather in Paris?"),
        streamed=True,
        options={"tools": [WEATHER]},
        scripted=_FRAGMENTS,
    ),
    ("emulator-openai-compatible", "details"): Case(
        "openai-compatible",
        _asks("Hello!"),
        options={"extra_body": {"logprobs": True}},
        scripted=_WITH_DETAILS,
    ),
    ("emulator-openai-compatible", "details_streamed"): Case(
        "openai-compatible",
        _asks("Hello!"),
        streamed=True,
        options={"extra_body": {"logprobs": True}},
        scripted=_WITH_DETAILS_STREAMED,
    ),
    ("emulator-openai-compatible", "broken_off_streamed"): Case(
        "openai-compatible", _asks("Hello!"), streamed=True, error=StreamError, scripted=_BROKEN_OFF
    ),
    ("emulator-openai-compatible", "out_of_quota"): Case(
        "openai-compatible", _asks("Hello!"), error=QuotaExhaustedError, scripted=_OUT_OF_QUOTA
    ),
    ("emulator-deepinfra", "story_streamed"): Case("deepinfra", _STORY, streamed=True),
    ("emulator-aimlapi", "story_streamed"): Case("aimlapi", _STORY, streamed=True),
    ("emulator-aigateway", "story_streamed"): Case("aigateway", _STORY, streamed=True),
    ("emulator-cloudflare", "story_streamed"): Case("cloudflare", _STORY, streamed=True),
    ("emulator-cloudflare-openai", "story_streamed"): Case("cloudflare-openai", _STORY, streamed=True),
    ("emulator-cloudflare", "image"): Case("cloudflare", _asks("What is in this picture?"), IMAGE),
    ("emulator-cloudflare", "tool_call"): Case(
        "cloudflare", _asks("What is the weather in Paris?"), options={"tools": [WEATHER]}
    ),
}


def access_to_emulator(case: Case, emulator_of: Callable[[str], Emulator]) -> dict[str, Any]:
    """Have an emulator ready for a case; give what it is asked with."""
    emulator = emulator_of(case.provider)
    if case.refused is not None:
        emulator.script(emulator.refusal(*case.refused))
    if case.scripted is not None:
        emulator.script(case.scripted)
    account = {"account_id": ACCOUNT_ID} if case.provider.startswith("cloudflare") else {}
    return {"url": emulator.base_url, "api_key": emulator.api_key, **account}


def ask_langchain(case: Case, url: str | None = None, **access: Any) -> dict[str, Any]:
    """Ask through `ChatLlamaVision`; give what was answered."""
    model = ChatLlamaVision(provider=case.provider, base_url=url, max_retries=0, **access)
    messages = convert_to_messages(list(case.turns))
    if case.image is not None:
        image = {
            "type": "image",
            "base64": base64.b64encode(case.image).decode(),
            "mime_type": "image/png",
        }
        messages[-1].content = [image, {"type": "text", "text": case.turns[-1][1]}]
    if case.batched:
        (message,) = model.submit_batch([messages], **case.options).results()
    elif case.streamed:
        message = reduce(add, model.stream(messages, **case.options))
    else:
        message = model.invoke(messages, **case.options)
    usage = message.usage_metadata
    return {
        "text": message.text,
        "calls": [(call["name"], call["args"]) for call in message.tool_calls],
        "usage": (usage["input_tokens"], usage["output_tokens"]) if usage else None,
        "image_tokens": usage["input_token_details"].get("image")
        if usage and "input_token_details" in usage
        else None,
        "reasoning": message.additional_kwargs.get("reasoning_content", ""),
        "tier": message.response_metadata.get("service_tier"),
        "logprobs": message.response_metadata.get("logprobs", {}).get("content", []),
        "cost": message.response_metadata.get("cost_usd"),
        "cost_is_estimate": message.response_metadata.get("cost_is_estimate"),
    }


def ask_llamaindex(case: Case, url: str | None = None, **access: Any) -> dict[str, Any]:
    """Ask through `LlamaVision`; give what was answered."""
    llm = LlamaVision(provider=case.provider, api_base=url, max_retries=0, **access)
    messages = [ChatMessage(role=role, blocks=[TextBlock(text=words)]) for role, words in case.turns]
    if case.image is not None:
        messages[-1].blocks.insert(0, ImageBlock(image=case.image))
    if case.batched:
        (response,) = llm.submit_batch([messages], **case.options).results()
    elif case.streamed:
        response = list(llm.stream_chat(messages, **case.options))[-1]
    else:
        response = llm.chat(messages, **case.options)
    usage = response.raw["usage"]
    return {
        "text": response.message.content or "",
        "calls": [
            (block.tool_name, block.tool_kwargs)
            for block in response.message.blocks
            if block.block_type == "tool_call"
        ],
        "usage": (usage["prompt_tokens"], usage["completion_tokens"]) if usage else None,
        "image_tokens": (usage or {}).get("prompt_tokens_details", {}).get("image_tokens"),
        "reasoning": "".join(
            block.content for block in response.message.blocks if block.block_type == "thinking"
        ),
        "tier": response.raw.get("service_tier"),
        "logprobs": response.raw.get("logprobs", {}).get("content", []),
        "cost": response.additional_kwargs.get("cost_usd"),
        "cost_is_estimate": response.additional_kwargs.get("cost_is_estimate"),
    }
