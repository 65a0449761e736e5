"""From the payloads of a chat completion to events: one decoder for streamed chunks and for whole bodies."""

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import from_json

from llama_vision.core.errors import (
    MalformedReplyError,
    StatusError,
    StreamError,
    TruncatedStreamError,
)
from llama_vision.core.events import (
    Event,
    Finished,
    LogprobsDelta,
    MetadataReport,
    ReasoningDelta,
    Started,
    TextDelta,
    UsageReport,
)
from llama_vision.core.json_types import as_mapping
from llama_vision.core.surrogates import SurrogateJoiner, replace_surrogates, replace_surrogates_in
from llama_vision.core.usage import NO_USAGE, Usage
from llama_vision.dialects.chat_completions.tool_call_assembler import ToolCallAssembler
from llama_vision.dialects.chat_completions.usage import UsageFormat
from llama_vision.dialects.chat_completions.wire import WireChoice, WireCompletion, WireMessage, WireToolCall
from llama_vision.dialects.error_bodies import ErrorParser, find_request_id
from llama_vision.toolcalls.special_tokens import SpecialTokenFilter

_DONE = b"[DONE]"
_BROKEN_REASONS = frozenset({"abort", "error"})
"""Finish reasons of a reply that broke off: vLLM's and SGLang's `abort`, OpenRouter's and vLLM's `error`.

https://openrouter.ai/docs/api/reference/errors-and-debugging. Unknown reasons, such as `eos`, are no errors.
"""

_RATE_LIMIT_HEADERS = "x-ratelimit-"
"""As OpenAI (https://platform.openai.com/docs/guides/rate-limits) and AIGateway document them."""

_EMPTY_REPLY = (
    "The provider's reply is empty: neither text nor tool calls. It may not have understood the request; "
    "where there is an image, it may not take images in this way."
)
"""Cloudflare's /ai/v1 says null for an image that it ignores. An empty string is a reply, and so is a stream without any."""


_TEXT_FIELDS = frozenset({"content", "role"})
_CHOICE_FIELDS = frozenset({"index", "delta"})
_CHUNK_FIELDS = frozenset({"id", "object", "created", "model", "choices"})
"""What a chunk of text has; any other field may mean something, unless it is null."""


class ChatCompletionsDecoder:
    """Decodes one reply; see `Decoder`."""

    def __init__(
        self,
        model: str,
        headers: Mapping[str, str],
        *,
        parse: Callable[[bytes], WireCompletion],
        errors: ErrorParser,
        usage: UsageFormat,
        max_tokens: int | None = None,
    ) -> None:
        """Begin a reply.

        `parse` raises pydantic's `ValidationError`; `max_tokens` is the requested limit, where the provider reports no
        `finish_reason`.
        """
        self._model = model
        self._request_id = find_request_id(headers)
        self._parse = parse
        self._errors = errors
        self._usage_format = usage
        self._max_tokens = max_tokens
        self._started = False
        self._whole = False
        self._has_content = False  # an empty text counts
        self._has_null = False  # where there should be content
        self.done = False
        self._finish_reason: str | None = None
        self._broken: StreamError | None = None
        self._usage = usage.parse_headers(headers)
        self._reported = NO_USAGE
        self._text = SpecialTokenFilter()
        self._halves = SurrogateJoiner()
        self._reasoning_halves = SurrogateJoiner()
        self._rate_limits = {name: headers[name] for name in headers if name.startswith(_RATE_LIMIT_HEADERS)}
        self._metadata: dict[str, str] = {}
        self._calls = ToolCallAssembler()

    def feed(self, payload: bytes) -> list[Event]:
        """Decode the next payload; see `Decoder.feed`."""
        if self.done:
            return []
        # Some gateways put blanks around it, or more behind it.
        if payload[:1] != b"{" and payload.lstrip().startswith(_DONE):
            self.done = True
            return []
        if self._started and (plain := _plain_text(payload)) is not None:
            return self._decode_text(plain)
        completion, usage = self._read(payload)
        events: list[Event] = []
        if not self._started:
            self._started = True
            model, reply_id = completion.model or self._model, completion.id
            events.append(
                Started(
                    replace_surrogates(model),
                    reply_id and replace_surrogates(reply_id),
                    self._request_id,
                    self._rate_limits,
                )
            )
            self._report_usage(events)  # from the headers, in case the reply is left before its end
        if completion.service_tier or completion.system_fingerprint:
            self._report_metadata(completion, events)
        for choice in completion.choices or ():
            if not choice.index:  # `n` is always 1
                self._handle_choice(choice, events)
        if usage is not None:
            self._usage = usage if self._usage is NO_USAGE else self._usage.merge(usage)
            self._report_usage(events)
        return events

    def close(self) -> list[Event]:
        """End the reply; see `Decoder.close`."""
        if not self._started or not (self.done or self._whole or self._finish_reason):
            raise TruncatedStreamError(
                "The stream ended before the model had finished. The part that arrived is in `.partial`."
            )
        if self._broken is not None:
            raise self._broken
        late_calls = self._calls.close(cut=self._finish_reason == "length")
        is_empty = self._has_null and not (self._has_content or self._calls.count)
        if is_empty and self._finish_reason in (None, "stop", "tool_calls"):
            raise MalformedReplyError(_EMPTY_REPLY)
        events: list[Event] = []
        if reasoning := self._reasoning_halves.close():
            events.append(ReasoningDelta(reasoning))
        if held := self._text.feed(self._halves.close()) + self._text.close():
            events.append(TextDelta(held))
        events += late_calls
        events.append(Finished(replace_surrogates(self._finish_reason or self._infer_finish_reason())))
        return events

    def _read(self, payload: bytes) -> tuple[WireCompletion, Usage | None]:
        try:
            completion = self._parse(payload)
            usage = self._usage_format.parse(completion)
        except ValidationError as error:
            quoted = payload[:200].decode(errors="replace")
            unreadable = MalformedReplyError(f"The provider sent something that can't be read: {quoted!r}")
            raise (self._find_error(payload) or unreadable) from error
        # Without a reply it is an error behind a 200, or a chunk of the provider's own.
        has_reply = completion.error is None and (completion.choices or usage is not None)
        if not has_reply and (error := self._find_error(payload)) is not None:
            raise error
        return completion, usage

    def _find_error(self, payload: bytes) -> StatusError | None:
        error = self._errors.find(payload)
        if error is not None:
            error.request_id = error.request_id or self._request_id
        return error

    def _infer_finish_reason(self) -> str:
        """Say why a reply ended whose provider does not (Cloudflare's native API)."""
        if self._calls.count:
            return "tool_calls"
        return "length" if self._max_tokens and self._usage.output_tokens == self._max_tokens else "stop"

    def _handle_choice(self, choice: WireChoice, events: list[Event]) -> None:
        self._whole = self._whole or choice.message is not None
        message = choice.delta or choice.message
        if isinstance(message, WireMessage):
            self._handle_message(message, events)
        elif "message" in choice.model_fields_set:
            self._has_null = True
        if choice.logprobs and (logprobs := _logprob_lists(choice.logprobs)):
            events.append(LogprobsDelta(logprobs))
        # A second finish chunk (Cloudflare /ai/v1) says nothing new.
        self._finish_reason = self._finish_reason or choice.finish_reason
        if choice.error or choice.finish_reason in _BROKEN_REASONS:
            self._break_off(choice)

    def _break_off(self, choice: WireChoice) -> None:
        """Note a failure that `close` raises, so that what stands beside it is in `.partial`."""
        reported = self._find_error(json.dumps({"error": choice.error}).encode())
        self._broken = self._broken or StreamError(
            f"The model's reply broke off ({reported or f'finish reason {choice.finish_reason!r}'}). "
            "The part that arrived is in `.partial`."
        )
        self._finish_reason = self._finish_reason or "error"

    def _handle_message(self, message: WireMessage, events: list[Event]) -> None:
        if reasoning := message.reasoning_content or message.reasoning:
            self._handle_reasoning(reasoning, events)
        content = message.content
        if content in (None, "") and message.refusal is not None:
            content = message.refusal
        if content is not None:
            events += self._decode_text(content if isinstance(content, str) else _content_text(content))
        elif self._whole or "content" in message.model_fields_set:
            self._has_null = True
        calls = message.tool_calls or ()
        # OpenAI's old form of one call; some send it empty beside a text.
        if not calls and (old := message.function_call) and (old.name or old.arguments):
            calls = (WireToolCall(index=0, function=old),)
        for position, call in enumerate(calls):
            delta = (
                self._calls.start_call(call)
                if self._whole
                else self._calls.add_fragment(call, position, len(calls))
            )
            if delta:
                events.append(delta)

    def _decode_text(self, content: str) -> list[Event]:
        self._has_content = True
        text = self._text.feed(self._halves.feed(content))
        return [TextDelta(text)] if text else []

    def _handle_reasoning(self, reasoning: Any, events: list[Event]) -> None:
        """Decode reasoning: `reasoning_content`, which DeepSeek documents, or `reasoning`, which OpenRouter does.

        Some servers send both, with the same text.
        """
        text = reasoning if isinstance(reasoning, str) else ""
        if isinstance(reasoning, list):
            text = _content_text(cast("list[Any]", reasoning))
        if text := self._reasoning_halves.feed(text):
            self._has_content = True
            events.append(ReasoningDelta(text))

    def _report_metadata(self, completion: WireCompletion, events: list[Event]) -> None:
        """Report OpenAI's fields about the reply; many servers repeat them in each chunk."""
        fields: Mapping[str, Any] = {
            "service_tier": completion.service_tier,
            "system_fingerprint": completion.system_fingerprint,
        }
        new = {
            name: replace_surrogates(value)
            for name, value in fields.items()
            if isinstance(value, str) and value and self._metadata.get(name) != replace_surrogates(value)
        }
        if new:
            self._metadata |= new
            events.append(MetadataReport(new))

    def _report_usage(self, events: list[Event]) -> None:
        if self._usage is not self._reported and self._usage != self._reported:
            self._reported = self._usage
            events.append(UsageReport(self._usage))


def _plain_text(payload: bytes) -> str | None:
    """Return the text of a chunk that holds nothing else; None for any other, which has to be validated.

    Most chunks are such, and validation would take half of what a chunk costs.
    """
    try:
        chunk: Any = from_json(payload)
        (choice,) = chunk["choices"]
        delta = choice["delta"]
        content = delta["content"]
        is_plain = (
            isinstance(content, str)
            and choice.get("index", 0) == 0
            and isinstance(chunk.get("id", ""), str)
            and isinstance(chunk.get("model", ""), str)
            and _has_only(delta, _TEXT_FIELDS)
            and _has_only(choice, _CHOICE_FIELDS)
            and _has_only(chunk, _CHUNK_FIELDS)
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return content if is_plain else None


def _has_only(fields: Mapping[str, Any], names: frozenset[str]) -> bool:
    return not any(value is not None and name not in names for name, value in fields.items())


def _logprob_lists(logprobs: Any) -> dict[str, list[Any]]:
    """Return the lists of a choice's log probabilities; a token may be half a surrogate pair."""
    lists: dict[str, list[Any]] = {
        name: cast("list[Any]", entries)
        for name, entries in as_mapping(logprobs).items()
        if isinstance(entries, list) and entries
    }
    try:
        return {name: replace_surrogates_in(entries) for name, entries in lists.items()}
    except RecursionError:  # nested without end
        return {}


def _content_text(content: bool | list[Any]) -> str:
    """Write content that is no string: a list of blocks, or true or false."""
    if isinstance(content, bool):
        return "true" if content else "false"
    return "".join(
        block if isinstance(block, str) else str(as_mapping(block).get("text") or "") for block in content
    )
