"""The reply that a series of events adds up to."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

from llama_vision.core.events import (
    Event,
    Finished,
    LogprobsDelta,
    MetadataReport,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from llama_vision.core.formatting import format_reply, format_usage, html_note, html_text
from llama_vision.core.messages import ToolCall
from llama_vision.core.usage import NO_USAGE, Usage

_MAX_FRAGMENTS = 256
"""A fragment takes far more memory than its few characters, so those of a long reply are joined now and then."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's reply.

    Attributes:
        text: The text.
        tool_calls: The tool calls, in order.
        usage: Token counts and cost.
        finish_reason: Why it ended; None where it was cut off.
        model: The model, as the provider names it.
        id: The provider's id of the reply.
        request_id: The id to quote to the provider's support.
        reasoning: The reasoning that the server reported beside the text.
        logprobs: Log probabilities, as in `LogprobsDelta`; empty where none were asked for.
        metadata: What else the provider reported: `rate_limits`, as in `Started`, and what is in `MetadataReport`.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage = field(default_factory=Usage)
    finish_reason: str | None = None
    model: str | None = None
    id: str | None = None
    request_id: str | None = None
    reasoning: str = ""
    logprobs: Mapping[str, Sequence[Any]] = field(default_factory=dict[str, Sequence[Any]], hash=False)
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)

    @classmethod
    def from_events(cls, events: Iterable[Event]) -> "Reply":
        """Add up events.

        Args:
            events: Of one reply; they may end early.

        Returns:
            The reply so far.
        """
        builder = ReplyBuilder()
        for event in events:
            builder.add(event)
        return builder.reply()

    def _repr_html_(self) -> str:
        """Render in a notebook."""
        return html_text(format_reply(self.text, self.tool_calls)) + html_note(format_usage(self.usage))


@dataclass(slots=True)
class _ToolCallBuilder:
    """A tool call so far."""

    id: str | None = None
    name: str | None = None
    arguments: list[str] = field(default_factory=list[str])


def _append(fragments: list[str], fragment: str) -> None:
    fragments.append(fragment)
    if len(fragments) > _MAX_FRAGMENTS:
        _join(fragments)


def _join(fragments: list[str]) -> str:
    """Join in place, so that growing snapshots stay cheap."""
    if len(fragments) > 1:
        fragments[:] = ["".join(fragments)]
    return fragments[0] if fragments else ""


class ReplyBuilder:
    """Adds up events one by one; `reply()` can be called at any time."""

    __slots__ = (
        "_calls",
        "_logprobs",
        "_reasoning",
        "_text",
        "finish_reason",
        "metadata",
        "started",
        "usage",
    )

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._logprobs: dict[str, list[Any]] = {}
        self._calls: dict[int, _ToolCallBuilder] = {}
        self.usage = NO_USAGE
        self.finish_reason: str | None = None
        self.started: Started | None = None
        self.metadata: dict[str, Any] = {}

    def add(self, event: Event) -> None:
        """Add the next event."""
        match event:
            case TextDelta():
                _append(self._text, event.text)
            case ToolCallDelta():
                self._add_call_delta(event)
            case UsageReport():
                self.usage = event.usage
            case ReasoningDelta():
                _append(self._reasoning, event.text)
            case LogprobsDelta():
                self._add_logprobs(event)
            case MetadataReport():
                self.metadata |= event.metadata
            case Started():
                self.started = event
            case Finished():
                self.finish_reason = event.reason
                for index in event.retracted_tool_calls:
                    self._calls.pop(index, None)
            case _:
                assert_never(event)

    def _add_call_delta(self, delta: ToolCallDelta) -> None:
        call = self._calls.setdefault(delta.index, _ToolCallBuilder())
        call.name = (call.name or "") + delta.name if delta.name and not delta.id else call.name or delta.name
        call.id = call.id or delta.id
        _append(call.arguments, delta.arguments)

    def _add_logprobs(self, delta: LogprobsDelta) -> None:
        for name, entries in delta.logprobs.items():
            self._logprobs.setdefault(name, []).extend(entries)

    @property
    def text(self) -> str:
        """The text so far."""
        return _join(self._text)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls so far; the last may be unfinished."""
        return tuple(call for _, call in self.calls_by_index())

    def calls_by_index(self) -> list[tuple[int, ToolCall]]:
        """Return the tool calls so far, each with the index of its deltas."""
        return [
            (index, ToolCall(call.id, call.name or "", _join(call.arguments)))
            for index, call in sorted(self._calls.items())
        ]

    def reply(self) -> Reply:
        """Return the reply so far."""
        started = self.started
        limits = {"rate_limits": dict(started.rate_limits)} if started and started.rate_limits else {}
        return Reply(
            text=self.text,
            tool_calls=self.tool_calls,
            usage=self.usage,
            finish_reason=self.finish_reason,
            model=started.model if started else None,
            id=started.id if started else None,
            request_id=started.request_id if started else None,
            reasoning=_join(self._reasoning),
            logprobs={name: list(entries) for name, entries in self._logprobs.items()},
            metadata={**limits, **self.metadata},
        )
