"""What the emulated model says when nobody told it what to say: always the same to the same request.

it is forced to call a tool, or asked for what one is called after    calls it, with the user's words and numbers
a tool has just answered                                              repeats its answer
JSON is wanted                                                        an example of the schema, or of quoted keys
there are images in the last user message                             "I see 2 image(s)."
anything else                                                         "Hello! How can I help you today?"

What a prompt says of tools and schemas in words counts as what is said in fields; a call is then written as text.
"""

import json
import re
from typing import Any

from tests.emulator.chat_completions import completion, pieces, usage_of
from tests.emulator.said_in_words import in_fields
from tests.emulator.schema_examples import example_of, quoted

GREETING = "Hello! How can I help you today?"
_IMAGE_TOKENS = 1601  # of one tile


def reply_to(body: dict[str, Any]) -> dict[str, Any]:
    """Answer a request.

    Args:
        body: Of the request, checked.

    Returns:
        The whole reply.
    """
    prompt_tokens = _prompt_tokens(body)
    body, as_text = in_fields(body)
    words = _last_words(body)
    if (tool := _tool_to_call(body, words)) is not None:
        arguments = example_of(tool.get("parameters") or {}, words)
        arguments = arguments if isinstance(arguments, dict) else {}
        usage = usage_of(prompt_tokens, 12)
        if as_text:
            call = {"name": tool["name"], "parameters": arguments}
            return completion(json.dumps(call, ensure_ascii=False), usage=usage)
        return completion(calls=[(tool["name"], arguments)], usage=usage)
    text, finish_reason = _cut(_text(body, words), body)
    usage = usage_of(prompt_tokens, len(pieces(text)))
    return completion(text, finish_reason=finish_reason, usage=usage)


def _text(body: dict[str, Any], words: str) -> str:
    last = body["messages"][-1]
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        return json.dumps(example_of(wanted["json_schema"]["schema"], words), ensure_ascii=False)
    if wanted.get("type") == "json_object":
        return json.dumps({key: f"an example of {key}" for key in quoted(words) or ["answer"]})
    if last["role"] == "tool":
        return f"The tool said: {last['content']}"
    images = sum(block["type"] == "image_url" for block in _blocks(last))
    if images:
        return f"I see {images} image(s)."
    count = re.search(r"\bcount to (\d+)", words, re.IGNORECASE)
    return " ".join(str(number + 1) for number in range(int(count[1]))) if count else GREETING


def _tool_to_call(body: dict[str, Any], words: str) -> dict[str, Any] | None:
    tools = [tool["function"] for tool in body.get("tools") or ()]
    choice = body.get("tool_choice") or "auto"
    if not tools or choice == "none":
        return None
    if isinstance(choice, dict):
        return next(tool for tool in tools if tool["name"] == choice["function"]["name"])
    asked_for = [tool for tool in tools if _is_asked_for(tool["name"], words)]
    if choice == "auto" and body["messages"][-1]["role"] != "user":
        return None
    if asked_for or choice == "required" or re.search(r"\bus(e|ing) (the|a) tool\b", words, re.IGNORECASE):
        return (asked_for or tools)[0]
    return None


def _is_asked_for(name: str, words: str) -> bool:
    """Whether the user says the tool's name, or a word of it that means something."""
    said = set(re.findall(r"\w+", words.lower()))
    parts = re.findall(r"[a-z]{4,}", re.sub(r"([A-Z])", r"_\1", name).lower())
    return name.lower() in said or any(part in said for part in parts)


def _cut(text: str, body: dict[str, Any]) -> tuple[str, str]:
    """End where the request says, and say why."""
    stops = body.get("stop") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.partition(stop)[0]
    tokens = pieces(text)
    most = body.get("max_tokens") or body.get("max_completion_tokens") or len(tokens)
    return "".join(tokens[:most]), "stop" if len(tokens) <= most else "length"


def _last_words(body: dict[str, Any]) -> str:
    users = [message for message in body["messages"] if message["role"] == "user"]
    return (
        "\n".join(block["text"] for block in _blocks(users[-1]) if block["type"] == "text") if users else ""
    )


def _prompt_tokens(body: dict[str, Any]) -> int:
    blocks = [block for message in body["messages"] for block in _blocks(message)]
    return sum(
        _IMAGE_TOKENS if block["type"] == "image_url" else len(pieces(block["text"])) for block in blocks
    )


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content") or ""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
