"""Adds up streams and replies of both frameworks, by duck typing: neither framework is imported."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

from llama_vision.core.events import Event
from llama_vision.core.formatting import format_reply
from llama_vision.core.json_types import as_mapping
from llama_vision.core.messages import ToolCall
from llama_vision.core.reply import Reply, ReplyBuilder
from llama_vision.core.usage import Usage
from llama_vision.jupyter.sources import Source, find_sources

_EVENTS = get_args(Event)
_CHAIN_KEYS = frozenset({"input", "context", "answer", "citations"})


def unwrap_stream(answer: Any) -> Any:
    """Return the stream in a response of LlamaIndex's engines; anything else is returned as it is."""
    if getattr(answer, "is_dummy_stream", None) is False:  # complete: its generator only raises
        return answer
    if getattr(answer, "achat_stream", None) is not None:  # its synchronous generator would block for ever
        return answer.async_response_gen()
    return getattr(answer, "response_gen", answer)


class ReplyAccumulator:
    """Accumulates the items of a stream of either framework to one reply.

    Attributes:
        reply: The reply so far: of an agent's turns the last, with the usage of all.
        previous_turns: Text and tool calls of an agent's earlier turns, each ending its line.
        sources: Of an engine's or a chain's answer, the pages and images it was found in.
    """

    def __init__(self) -> None:
        self.reply = Reply()
        self.previous_turns = ""
        self.sources: tuple[Source, ...] = ()
        self._events = ReplyBuilder()
        self._calls: dict[object, ToolCall] = {}
        self._message_id: str | None = None

    def add(self, item: Any) -> None:  # noqa: C901 - one case for each type
        """Add a message or chunk of LangChain, a response of LlamaIndex, a string, or one of our events or replies.

        Raises:
            TypeError: It is none of these.
        """
        match item:
            case str():
                self._append(item)
            case Reply():
                self.reply = item
            case (message, dict()) if isinstance(item, tuple) and hasattr(message, "content"):  # of LangGraph
                self.add(message)
            case _ if isinstance(item, _EVENTS):
                self._events.add(item)
                self.reply = self._events.reply()
            case _ if hasattr(item, "usage_metadata") and hasattr(item, "content"):
                self._add_message(item)
            case _ if hasattr(item, "content") and hasattr(item, "response_metadata"):
                self._end_turn()  # a tool's or the user's message, which LangChain's agents stream too
            case _ if hasattr(item, "raw") and hasattr(item, "delta"):
                self._add_response(item)
            case _ if isinstance(text := getattr(item, "response", None), str):  # of LlamaIndex's engines
                self._append(text)
                self.add_sources(item)
            case dict() if item.keys() & _CHAIN_KEYS:  # of LangChain's retrieval chains, whole or streamed
                self.add_sources(item)
                if "answer" in item:
                    self.add(item["answer"])
            case _:
                raise TypeError(
                    f"A {type(item).__name__} can't be shown as an answer. Give what .stream(), .astream() or .invoke() of "
                    "a LangChain model return, or stream_chat, stream_complete, chat or complete of a LlamaIndex one."
                )

    def add_sources(self, response: Any) -> None:
        """Add the sources of a response of LlamaIndex's engines or LangChain's chains, and the usage that ours has."""
        self.sources = find_sources(response) or self.sources
        counts = as_mapping(as_mapping(getattr(response, "metadata", None)).get("usage"))
        self.reply = replace(self.reply, usage=self.reply.usage.merge(Usage.from_openai(counts)))

    def _end_turn(self) -> None:
        """Move the reply so far to the previous turns."""
        if text := format_reply(self.reply.text, self.reply.tool_calls):
            self.previous_turns += f"{text}\n"
        self._calls.clear()
        self.reply = Reply(usage=self.reply.usage)

    def _append(self, text: str) -> None:
        self.reply = _replace_known(self.reply, text=self.reply.text + text)

    def _add_message(self, message: Any) -> None:
        """Add a message of LangChain, or a chunk: text, calls and usage of chunks add up."""
        if message.id != self._message_id:  # the next turn, of the same model or another one of the graph
            self._end_turn()
            self._message_id = message.id
        metadata = as_mapping(message.response_metadata)
        for key, call in _message_calls(message):
            previous = self._calls.get(key, ToolCall(None, "", ""))
            self._calls[key] = ToolCall(
                previous.id or call.id, previous.name or call.name, previous.arguments + call.arguments
            )
        self.reply = _replace_known(
            self.reply,
            text=self.reply.text + str(message.text),
            tool_calls=tuple(self._calls.values()),
            usage=self.reply.usage + Usage.from_langchain(message),
            finish_reason=metadata.get("finish_reason"),
            model=metadata.get("model_name"),
            id=metadata.get("id"),
            request_id=metadata.get("request_id"),
        )

    def _add_response(self, response: Any) -> None:
        """Add a response of LlamaIndex: each is a snapshot of all so far."""
        message = getattr(response, "message", None)
        raw, extra = as_mapping(response.raw), as_mapping(response.additional_kwargs)
        self.reply = _replace_known(
            self.reply,
            text=(response.text if message is None else message.content) or "",
            tool_calls=_completion_calls(response) if message is None else _block_calls(message.blocks),
            usage=self.reply.usage.merge(Usage.from_openai({**extra, **as_mapping(raw.get("usage"))})),
            finish_reason=raw.get("finish_reason"),
            model=raw.get("model"),
            id=raw.get("id"),
            request_id=raw.get("request_id"),
        )


def _replace_known(reply: Reply, **changes: Any) -> Reply:
    """Replace fields of the reply; None keeps the old value."""
    return replace(reply, **{name: value for name, value in changes.items() if value is not None})


def _message_calls(message: Any) -> list[tuple[object, ToolCall]]:
    """Return a message's calls, each with a key that is the same in all chunks of the call."""
    chunks: list[Any] | None = getattr(message, "tool_call_chunks", None)
    if chunks is None:
        return [
            (call["id"], ToolCall(call["id"], call["name"], _as_text(call["args"])))
            for call in message.tool_calls
        ]
    return [
        (
            (message.id, chunk.get("index")),
            ToolCall(chunk.get("id"), chunk.get("name") or "", chunk.get("args") or ""),
        )
        for chunk in chunks
    ]


def _block_calls(blocks: Sequence[Any]) -> tuple[ToolCall, ...]:
    calls = [block for block in blocks if block.block_type == "tool_call"]
    return tuple(ToolCall(call.tool_call_id, call.tool_name, _as_text(call.tool_kwargs)) for call in calls)


def _completion_calls(response: Any) -> tuple[ToolCall, ...]:
    """Return the calls of a completion response, which has no blocks."""
    calls: Sequence[object] = as_mapping(response.additional_kwargs).get("tool_calls") or ()
    functions = [(as_mapping(call).get("id"), as_mapping(as_mapping(call).get("function"))) for call in calls]
    return tuple(
        ToolCall(call_id, function.get("name") or "", _as_text(function.get("arguments") or ""))
        for call_id, function in functions
    )


def _as_text(arguments: object) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
