"""The pieces a reply arrives in: a closed union, so that a type checker finds every place that forgets one."""

from dataclasses import dataclass, field
from typing import TypeAlias

from llama_vision.core.usage import Usage


@dataclass(frozen=True, slots=True)
class Started:
    """The first event of every reply.

    Attributes:
        model: The model that answers, in the provider's words; the requested one where it doesn't say.
        id: The provider's id of the reply.
        request_id: The id to quote to the provider's support.

    """

    model: str
    id: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next words."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """The next piece of a tool call.

    Attributes:
        index: Which call this belongs to, counted from 0.
        id: Set on the first piece of a call only.
        name: Set on the first piece of a call only, and whole.
        arguments: A further fragment of the JSON text.

    """

    index: int
    id: str | None
    name: str | None
    arguments: str


@dataclass(frozen=True, slots=True)
class UsageReport:
    """All that is known so far of what the reply consumed: a later report includes the earlier ones."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of every reply that is whole.

    Attributes:
        reason: Why the model ended: `stop`, `length`, `tool_calls`, or the provider's own word.
        retracted_tool_calls: The indices of calls that were none after all, because what was written for them went on as no call
            can: it is among the words, whole.

    """

    reason: str
    retracted_tool_calls: frozenset[int] = field(default_factory=frozenset[int])


Event: TypeAlias = Started | TextDelta | ToolCallDelta | UsageReport | Finished
