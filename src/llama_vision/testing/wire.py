"""Encodes scripted replies as chat completions: a whole body, or the chunks of a stream."""

import json
import re
from collections.abc import Iterator
from typing import Any

from llama_vision.core.json_types import as_mapping
from llama_vision.core.usage import Usage
from llama_vision.testing.received import ReceivedRequest
from llama_vision.testing.script import Answer, Failure

_WORD = re.compile(r"\s*\S+|\s+")
_FRAGMENT = 7  # characters of a call's arguments per chunk: too few to be JSON
_PROMPT_TOKENS = 10


def encode_completion(answer: Answer, request: ReceivedRequest, number: int) -> bytes:
    """Encode a reply as one JSON body; `number` is the reply's, for its ids."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
    if answer.tool_calls:
        message["tool_calls"] = _calls(answer, number)
    choice = {"index": 0, "message": message, "finish_reason": _finish_reason(answer)}
    body = {**_head(request, number, "chat.completion"), "choices": [choice]}
    return json.dumps({**body, **_usage(answer)}).encode()


def encode_chunks(answer: Answer, request: ReceivedRequest, number: int) -> Iterator[bytes]:
    """Encode a reply as server-sent events: words, fragments of tool calls, finish reason, usage, `[DONE]`."""
    head = _head(request, number, "chat.completion.chunk")
    for delta in _deltas(answer, number):
        choice = {"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": None}
        yield _event({**head, "choices": [choice]})
    yield _event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": _finish_reason(answer)}]})
    include_usage = as_mapping(request.body.get("stream_options")).get("include_usage")
    if include_usage and (usage := _usage(answer)):
        yield _event({**head, "choices": [], **usage})
    yield b"data: [DONE]\n\n"


def encode_error(failure: Failure) -> bytes:
    """Encode a JSON error body as most hosts do."""
    error = {"message": failure.message, "type": "scripted", "param": None, "code": None}
    return json.dumps({"error": error}).encode()


def _event(payload: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


def _head(request: ReceivedRequest, number: int, kind: str) -> dict[str, Any]:
    return {
        "id": f"scripted-{number}",
        "object": kind,
        "created": 1_700_000_000,  # constant, so that replies are reproducible
        "model": request.body.get("model"),
    }


def _finish_reason(answer: Answer) -> str:
    return answer.finish_reason or ("tool_calls" if answer.tool_calls else "stop")


def _calls(answer: Answer, number: int) -> list[dict[str, Any]]:
    return [
        {
            "id": call.id or f"call_{number}_{index}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for index, call in enumerate(answer.tool_calls)
    ]


def _deltas(answer: Answer, number: int) -> Iterator[dict[str, Any]]:
    for word in _WORD.findall(answer.text):
        yield {"content": word}
    for index, call in enumerate(_calls(answer, number)):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        yield {"tool_calls": [{**call, "index": index, "function": {"name": name, "arguments": ""}}]}
        for start in range(0, len(arguments), _FRAGMENT):
            fragment = {"arguments": arguments[start : start + _FRAGMENT]}
            yield {"tool_calls": [{"index": index, "function": fragment}]}


def _usage(answer: Answer) -> dict[str, Any]:
    usage = answer.usage or Usage(_PROMPT_TOKENS, len(_WORD.findall(answer.text)))
    cached = usage.cached_input_tokens
    fields = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "cost": usage.cost_usd,
        "prompt_tokens_details": None if cached is None else {"cached_tokens": cached},
    }
    reported = {name: value for name, value in fields.items() if value is not None}
    return {"usage": reported} if reported else {}
