"""The events of a reply: a closed union, so that a type checker finds every `match` that lacks one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from llama_vision.core.usage import Usage


@dataclass(frozen=True, slots=True)
class Started:
    """The first event of every reply.

    Attributes:
        model: The model that replies, as the provider names it; the requested one where it does not.
        id: The provider's id of the reply.
        request_id: The id to quote to the provider's support.
        rate_limits: The response headers that begin with `x-ratelimit-`, by name.
    """

    model: str
    id: str | None = None
    request_id: str | None = None
    rate_limits: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next text."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """The next text of the reasoning, which some servers report beside the reply."""

    text: str


@dataclass(frozen=True, slots=True)
class LogprobsDelta:
    """The next log probabilities, where the request asked for them.

    Attributes:
        logprobs: As the provider names them, lists only: OpenAI's `content` and `refusal`, with one entry a token, or
            `tokens` and `token_logprobs` (Together). A later list continues the earlier one of its name.
    """

    logprobs: Mapping[str, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """The next fragment of a tool call.

    Attributes:
        index: The call it belongs to, counted from 0.
        id: Set on the first fragment of a call only.
        name: Set on the first fragment of a call only, and whole. Where a provider sends it in pieces, the others follow
            without an id, before the arguments.
        arguments: The next fragment of the JSON text.
    """

    index: int
    id: str | None
    name: str | None
    arguments: str


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The usage so far: a later report includes the earlier ones."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class MetadataReport:
    """What else is known of the reply.

    Attributes:
        metadata: `service_tier` and `system_fingerprint`, as OpenAI documents them. A later report adds to the earlier ones.
    """

    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of every reply that is whole.

    Attributes:
        reason: The finish reason: `stop`, `length`, `tool_calls`, or the provider's own.
        retracted_tool_calls: Indices of calls that turned out to be text, because what followed can't be part of a call; all
            of it is in the text.
    """

    reason: str
    retracted_tool_calls: frozenset[int] = field(default_factory=frozenset[int])


Event: TypeAlias = (
    Started
    | TextDelta
    | ReasoningDelta
    | LogprobsDelta
    | ToolCallDelta
    | UsageReport
    | MetadataReport
    | Finished
)
