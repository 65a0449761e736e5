"""Chat completions on the wire: whole, and cut into chunks."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

_PIECE = re.compile(r"\s*\S+|\s+")
_ARGUMENTS_PIECE = 7  # characters; so that no fragment is JSON by itself


def completion(
    text: str | None = None,
    *,
    calls: Sequence[tuple[str, dict[str, Any] | str]] = (),
    usage: dict[str, Any] | None = None,
    finish_reason: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Write a whole reply.

    Args:
        text: The words.
        calls: Name and arguments of each tool call; arguments as a string are taken as they are.
        usage: The counts; some that fit the text where there are none.
        finish_reason: What fits, by default.
        **more: Further fields of the body, such as `id`.
    """
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [
            {
                "id": f"call_{number:08d}",
                "type": "function",
                "function": {
                    "name": name,
                    "arguments": arguments
                    if isinstance(arguments, str)
                    else json.dumps(arguments, ensure_ascii=False),
                },
            }
            for number, (name, arguments) in enumerate(calls)
        ]
    finish_reason = finish_reason or ("tool_calls" if calls else "stop")
    return {
        "id": "chatcmpl-guMTxWgpFf",
        "object": "chat.completion",
        "created": 1694623155,
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": usage_of(15, len(pieces(text or ""))) if usage is None else usage,
        **more,
    }


def usage_of(prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    """Count, with the cost in US dollars that DeepInfra tells."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "estimated_cost": (prompt_tokens + completion_tokens) * 0.055e-6,
    }


def chunks(whole: dict[str, Any], *, include_usage: bool = True) -> Iterator[dict[str, Any]]:
    """Cut a whole reply into the chunks of a stream, without the end mark."""
    head = {name: value for name, value in whole.items() if name not in ("object", "choices", "usage")}
    head["object"] = "chat.completion.chunk"
    choice = whole["choices"][0]
    for delta in deltas(choice["message"]):
        piece = {"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": None}
        yield {**head, "choices": [piece]}
    last = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]}
    yield {**last, "usage": whole["usage"]} if include_usage and whole.get("usage") else last


def deltas(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Cut a message into what its chunks add."""
    for piece in pieces(message.get("content") or ""):
        yield {"content": piece}
    for index, call in enumerate(message.get("tool_calls") or ()):
        function = call["function"]
        yield {
            "tool_calls": [{**call, "index": index, "function": {"name": function["name"], "arguments": ""}}]
        }
        arguments = function["arguments"]
        for start in range(0, len(arguments), _ARGUMENTS_PIECE):
            fragment = {"arguments": arguments[start : start + _ARGUMENTS_PIECE]}
            yield {"tool_calls": [{"index": index, "function": fragment}]}


def without_cost(usage: dict[str, Any]) -> tuple[dict[str, Any], float | None]:
    """Take DeepInfra's cost in US dollars out of the counts; other providers tell it elsewhere."""
    rest = {name: value for name, value in usage.items() if name != "estimated_cost"}
    return rest, usage.get("estimated_cost")


def pieces(text: str) -> list[str]:
    """Cut a text into what counts as tokens here: words with the space before them."""
    return _PIECE.findall(text)
