"""Messages in the form of chat completions."""

import base64
import json
from collections.abc import Sequence
from typing import Any, assert_never

from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.messages import Document, Image, Message, Text, ToolCall, ToolResult


def encode_messages(messages: Sequence[Message], *, null_content: bool = True) -> list[dict[str, Any]]:
    """Encode a conversation as the `messages` of a body.

    Images in a tool's result follow in a user message of their own: servers take only strings in `role: tool`
    (LM Studio, vLLM and others respond to anything else with a 400). Beside tool calls no text is null, which OpenAI
    documents and some servers want, or without `null_content` an empty string.

    Raises:
        UnsupportedInputError: A message holds a part that its role can't have.
    """
    encoded: list[dict[str, Any]] = []
    pending_images: list[dict[str, Any]] = []  # of tool results, all of which have to come before them
    for position, message in enumerate(messages):
        if message.role == "tool":
            for result in _tool_results(message, position):
                encoded.append(_tool_message(result, message.name))
                if images := [_image(part) for part in result.parts if isinstance(part, Image)]:
                    text = f"Shown by tool call {result.call_id}:"
                    pending_images += [{"type": "text", "text": text}, *images]
            continue
        if pending_images:
            encoded.append({"role": "user", "content": pending_images})
            pending_images = []
        encoded.append(_encode_message(message, position, null_content))
    if pending_images:
        encoded.append({"role": "user", "content": pending_images})
    return encoded


def _encode_message(message: Message, position: int, null_content: bool) -> dict[str, Any]:  # noqa: C901 - a case for each part
    turn: dict[str, Any] = {"role": message.role}
    if message.name:
        turn["name"] = message.name
    content: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for part in message.parts:
        match part:
            case Text():
                content.append({"type": "text", "text": part.text})
            case Image():
                if message.role != "user":
                    raise UnsupportedInputError(
                        f"Message {position} ({message.role}) holds an image: "
                        "only user messages and tool results can. Move it to a user message."
                    )
                content.append(_image(part))
            case ToolCall():
                if message.role != "assistant":
                    raise UnsupportedInputError(
                        f"Message {position} ({message.role}) holds a tool call: only assistant messages can."
                    )
                calls.append(_tool_call(part, f"call_{position}_{len(calls)}"))
            case Document():
                raise UnsupportedInputError("A document has to be replaced by images of its pages.")
            case ToolResult():
                raise UnsupportedInputError(
                    f"Message {position} ({message.role}) holds a tool's result: use role 'tool'."
                )
            case _:
                assert_never(part)
    turn["content"] = _collapse_text(content)
    if calls:
        turn["tool_calls"] = calls
        turn["content"] = turn["content"] or (None if null_content else "")
    return turn


def _collapse_text(content: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Join text into a string, which every server takes, unless there is an image."""
    if all(block["type"] == "text" for block in content):
        return "\n".join(block["text"] for block in content)
    return content


def _image(image: Image) -> dict[str, Any]:
    url = image.url
    if image.data is not None:
        url = f"data:{image.media_type};base64,{base64.b64encode(image.data).decode()}"
    block: dict[str, Any] = {"url": url}
    if image.detail:
        block["detail"] = image.detail
    return {"type": "image_url", "image_url": block}


def _tool_call(call: ToolCall, fallback_id: str) -> dict[str, Any]:
    arguments = call.arguments if call.arguments.strip() else "{}"
    return {
        "id": call.id or fallback_id,
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }


def _tool_results(message: Message, position: int) -> list[ToolResult]:
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    if len(results) != len(message.parts):
        raise UnsupportedInputError(f"Message {position} (tool) holds something that is not a tool's result.")
    return results


def _tool_message(result: ToolResult, name: str | None) -> dict[str, Any]:
    text = result.text
    images = sum(isinstance(part, Image) for part in result.parts)
    if images and not text:
        text = json.dumps({"images": images, "note": "shown in the next message"})
    turn: dict[str, Any] = {"role": "tool", "tool_call_id": result.call_id, "content": text}
    if name:
        turn["name"] = name
    return turn
