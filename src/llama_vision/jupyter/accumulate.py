"""What streams and replies of the frameworks hold, read by their shape: neither framework is loaded for it."""

import json
from collections.abc import Sequence
from typing import Any, cast

from llama_vision.core.events import Finished, Started, TextDelta, ToolCallDelta, UsageReport
from llama_vision.core.formatting import format_reply
from llama_vision.core.json_types import as_mapping
from llama_vision.core.messages import ToolCall
from llama_vision.core.reply import Reply, ReplyBuilder
from llama_vision.core.usage import Usage

_EVENTS = (Started, TextDelta, ToolCallDelta, UsageReport, Finished)
_PAIR = 2  # what LangGraph streams: a message, and where in the graph it comes from


def unwrap_stream(answer: Any) -> Any:
    """Unpack what LlamaIndex's engines wrap a stream into.

    Args:
        answer: Anything.

    Returns:
        The stream inside, or the answer as it is.

    """
    if getattr(answer, "is_dummy_stream", None) is False:  # whole, and its generator only raises
        return answer
    if getattr(answer, "achat_stream", None) is not None:  # its synchronous generator would wait for ever
        return answer.async_response_gen()
    return getattr(answer, "response_gen", answer)


class ReplyAccumulator:
    """Adds up the items of a stream, of whichever framework."""

    def __init__(self) -> None:
        self._reply = Reply()
        self._earlier = ""
        self._events = ReplyBuilder()
        self._calls: dict[object, ToolCall] = {}
        self._speaker: str | None = None

    @property
    def reply(self) -> Reply:
        """The answer so far: of an agent's turns the last, with the usage of all."""
        return self._reply

    @property
    def previous_turns(self) -> str:
        """What an agent said and asked for in its turns before, each ending its line."""
        return self._earlier

    def add(self, item: object) -> None:
        """Take in the next item, or a whole reply.

        Args:
            item: A message or a chunk of LangChain, a response of LlamaIndex, a text, or an event or reply of ours.

        Raises:
            TypeError: It is none of these.

        """
        match item:
            case str():
                self._append(item)
            case Reply():
                self._reply = item
            case tuple() if _is_pair(cast("tuple[object, ...]", item)):
                self.add(cast("tuple[object, ...]", item)[0])
            case _ if isinstance(item, _EVENTS):
                self._events.add(item)
                self._reply = self._events.reply()
            case _ if hasattr(item, "usage_metadata") and hasattr(item, "content"):
                self._add_message(item)
            case _ if _is_other_message(item):
                self._end_turn()
            case _ if hasattr(item, "raw") and hasattr(item, "delta"):
                self._take_response(item)
            case _ if isinstance(answer := getattr(item, "response", None), str):  # of LlamaIndex's engines
                self._append(answer)
            case _:
                raise TypeError(
                    f"A {type(item).__name__} can't be shown as an answer. Give what .stream(), .astream() or .invoke() of "
                    "a LangChain model return, or stream_chat, stream_complete, chat or complete of a LlamaIndex one."
                )

    def _end_turn(self) -> None:
        """Put aside what was said before others spoke."""
        if words := format_reply(self._reply.text, self._reply.tool_calls):
            self._earlier += f"{words}\n"
        self._calls.clear()
        self._reply = Reply(usage=self._reply.usage)

    def _append(self, text: str) -> None:
        self._reply = _replace_known(self._reply, text=self._reply.text + text)

    def _add_message(self, message: Any) -> None:
        """Add a message of LangChain, or a chunk of one: what chunks tell is to be added up."""
        if message.id != self._speaker:  # another model of the graph, or the same one once more
            self._end_turn()
            self._speaker = message.id
        told = as_mapping(message.response_metadata)
        for key, call in _message_calls(message):
            self._calls[key] = _merge_call(self._calls.get(key), call)
        self._reply = _replace_known(
            self._reply,
            text=self._reply.text + str(message.text),
            tool_calls=tuple(self._calls.values()),
            usage=self._reply.usage + _message_usage(message),
            finish_reason=told.get("finish_reason"),
            model=told.get("model_name"),
            id=told.get("id"),
            request_id=told.get("request_id"),
        )

    def _take_response(self, response: Any) -> None:
        """Take a response of LlamaIndex, each of which has all that came so far."""
        message = getattr(response, "message", None)
        told, additional = as_mapping(response.raw), as_mapping(response.additional_kwargs)
        self._reply = _replace_known(
            self._reply,
            text=(response.text if message is None else message.content) or "",
            tool_calls=_told_calls(response) if message is None else _block_calls(message.blocks),
            usage=self._reply.usage.merge(Usage.from_openai({**additional, **as_mapping(told.get("usage"))})),
            finish_reason=told.get("finish_reason"),
            model=told.get("model"),
            id=told.get("id"),
            request_id=told.get("request_id"),
        )


def _is_pair(item: Sequence[object]) -> bool:
    return len(item) == _PAIR and isinstance(item[1], dict) and hasattr(item[0], "content")


def _is_other_message(item: object) -> bool:
    """Tell what tools and users say, which comes in the streams of LangChain's agents and is no part of the answer."""
    return hasattr(item, "content") and hasattr(item, "response_metadata")


def _replace_known(reply: Reply, **news: Any) -> Reply:
    """Give the reply with what is known now; None changes nothing."""
    fields = {name: getattr(reply, name) for name in Reply.__slots__}
    return Reply(**fields | {name: value for name, value in news.items() if value is not None})


def _message_calls(message: Any) -> list[tuple[object, ToolCall]]:
    """Find a message's calls, each with what tells it from the others of the stream."""
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


def _merge_call(call: ToolCall | None, more: ToolCall) -> ToolCall:
    if call is None:
        return more
    return ToolCall(call.id or more.id, call.name or more.name, call.arguments + more.arguments)


def _block_calls(blocks: Sequence[Any]) -> tuple[ToolCall, ...]:
    calls = [block for block in blocks if block.block_type == "tool_call"]
    return tuple(ToolCall(call.tool_call_id, call.tool_name, _as_text(call.tool_kwargs)) for call in calls)


def _told_calls(response: Any) -> tuple[ToolCall, ...]:
    """Find the calls of a completion, which has no blocks."""
    told: Sequence[object] = as_mapping(response.additional_kwargs).get("tool_calls") or ()
    functions = [(as_mapping(call).get("id"), as_mapping(as_mapping(call).get("function"))) for call in told]
    return tuple(
        ToolCall(call_id, function.get("name") or "", _as_text(function.get("arguments") or ""))
        for call_id, function in functions
    )


def _as_text(arguments: object) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _message_usage(message: Any) -> Usage:
    counts, told = as_mapping(message.usage_metadata), as_mapping(message.response_metadata)
    return Usage(
        input_tokens=counts.get("input_tokens"),
        output_tokens=counts.get("output_tokens"),
        cached_input_tokens=as_mapping(counts.get("input_token_details")).get("cache_read"),
        cost_usd=told.get("cost_usd"),
        cost_is_estimate=bool(told.get("cost_is_estimate")),
    )
