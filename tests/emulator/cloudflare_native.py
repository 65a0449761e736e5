"""How Cloudflare's native route says a chat completions reply, and what its requests are in the terms of chat completions."""

import json
from collections.abc import Iterator
from typing import Any

from tests.emulator.chat_completions import deltas, without_cost
from tests.emulator.cloudflare_checks import DEFAULT_MAX_TOKENS

_NEURONS_PER_USD = 1000 / 0.011
_PADDING = "abdefghijklmnopqrstuvwxyz0123456789"


def as_chat_completions(body: dict[str, Any]) -> dict[str, Any]:
    """Put a native request into the terms of chat completions, for a model that knows only those."""
    messages = body.get("messages") or [{"role": "user", "content": body["prompt"]}]
    if body.get("image"):
        last = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=0)
        image = {"type": "image_url", "image_url": {"url": "data:"}}
        content = [image, {"type": "text", "text": messages[last]["content"]}]
        messages = [*messages[:last], {**messages[last], "content": content}, *messages[last + 1 :]]
    tools = [{"type": "function", "function": tool.get("function", tool)} for tool in body.get("tools", ())]
    most = body.get("max_tokens", DEFAULT_MAX_TOKENS)
    return {"messages": messages, "max_tokens": most, **({"tools": tools} if tools else {})}


def result_of(reply: dict[str, Any]) -> dict[str, Any]:
    """Say a whole reply: flat calls without ids, their arguments as objects, and no reason for its end."""
    message = reply["choices"][0]["message"]
    calls = [
        {"name": call["function"]["name"], "arguments": _object(call["function"]["arguments"])}
        for call in message.get("tool_calls") or ()
    ]
    usage = usage_of(reply)
    return {
        "response": message.get("content"),
        "tool_calls": calls,
        **({"usage": usage} if usage else {}),
    }


def events_of(reply: dict[str, Any]) -> Iterator[object]:
    """Say a streamed reply: with padding, and usage on the last event."""
    for number, delta in enumerate(deltas(reply["choices"][0]["message"])):
        padding = {"p": _PADDING[: number * 7 % len(_PADDING)]}
        if "content" in delta:
            yield {"response": delta["content"], **({} if number else {"tool_calls": []}), **padding}
        else:
            yield {"tool_calls": [_call_delta(call) for call in delta["tool_calls"]], **padding}
    if reply["choices"][0]["message"].get("tool_calls"):
        # Means nothing; its own client passes it over.
        nothing = {"id": None, "type": None, "index": 0, "function": {"name": None, "arguments": ""}}
        yield {"tool_calls": [nothing], "p": "ab"}
    usage = usage_of(reply)
    yield {"response": "", "tool_calls": [], "p": "", **({"usage": usage} if usage else {})}
    yield "[DONE]"


def usage_of(reply: dict[str, Any]) -> dict[str, Any]:
    """Count as Cloudflare does, in whose currency a dollar is some 91,000 neurons."""
    usage, cost = without_cost(reply.get("usage") or {})
    return usage if cost is None else {**usage, "neurons": cost * _NEURONS_PER_USD}


def _call_delta(call: dict[str, Any]) -> dict[str, Any]:
    if "id" not in call:
        return call
    return {**call, "function": {"name": call["function"]["name"]}}


def _object(arguments: str) -> Any:
    """Read arguments, which go over this wire as an object; what is no JSON stays a text."""
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
