"""Content-block translator: our messages as LangChain's standard content blocks.

Without it a chunk with both text and a fragment of a tool call becomes a finished call without arguments. Indices are
strings because LangChain numbers text blocks from 0 itself, and a call numbered 0 would be merged into them.
"""

from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages import content as types
from langchain_core.messages.block_translators import register_translator

from llama_vision.langchain.convert import MODEL_PROVIDER, REASONING


def translate(message: AIMessage) -> list[types.ContentBlock]:
    """Translate a whole message."""
    blocks = _content(message, {}, {})
    blocks += [{**call, "type": "tool_call"} for call in message.tool_calls]
    blocks += [{**call, "type": "invalid_tool_call"} for call in message.invalid_tool_calls]
    return cast("list[types.ContentBlock]", blocks)


def translate_chunk(message: AIMessageChunk) -> list[types.ContentBlock]:
    """Translate a chunk, or the sum of all chunks."""
    if message.chunk_position == "last" and not _is_fragment(message):
        return translate(message)
    blocks = _content(message, {"index": "lc_txt_0"}, {"index": "lc_rs_0"})
    blocks += [
        {**call, "type": "tool_call_chunk", "index": f"lc_tc_{call.get('index') or 0}"}
        for call in message.tool_call_chunks
    ]
    return cast("list[types.ContentBlock]", blocks)


def _is_fragment(message: AIMessageChunk) -> bool:
    """Tell whether this continues calls: only the first fragment of a call, and the sum of all, has name and id."""
    return any(call.get("name") is None and call.get("id") is None for call in message.tool_call_chunks)


def _content(
    message: AIMessage, text_index: dict[str, Any], reasoning_index: dict[str, Any]
) -> list[dict[str, Any]]:
    if isinstance(message.content, str):
        reasoning, text = message.additional_kwargs.get(REASONING), message.content
        return [
            *([{"type": "reasoning", "reasoning": reasoning, **reasoning_index}] if reasoning else []),
            *([{"type": "text", "text": text, **text_index}] if text else []),
        ]
    blocks = cast("list[str | dict[str, Any]]", message.content)
    return [block for block in blocks if isinstance(block, dict) and block.get("type") != "tool_call"]


def register() -> None:
    """Register the translator with LangChain."""
    register_translator(MODEL_PROVIDER, translate, translate_chunk)
