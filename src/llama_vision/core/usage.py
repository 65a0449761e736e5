"""Token counts and cost of a reply."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import add
from typing import Any, TypeVar

from llama_vision.core.json_types import as_mapping

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts and cost. None means unknown, which is not zero.

    Attributes:
        input_tokens: Tokens of the prompt, images included where the provider counts them.
        output_tokens: Tokens of the reply.
        cached_input_tokens: How many of `input_tokens` came from the provider's cache.
        cost_usd: Cost in US dollars.
        cost_is_estimate: Whether the cost was estimated from the list price, and not reported by the provider.
        input_token_details: How many of `input_tokens` are of one kind, by the provider's name, such as `image_tokens`.
        output_token_details: The same of `output_tokens`, such as `reasoning_tokens`.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cost_usd: float | None = None
    cost_is_estimate: bool = False
    input_token_details: Mapping[str, int] = field(default_factory=dict[str, int], hash=False)
    output_token_details: Mapping[str, int] = field(default_factory=dict[str, int], hash=False)

    @classmethod
    def from_openai(cls, fields: Mapping[str, Any]) -> "Usage":
        """Read usage from OpenAI's field names.

        Args:
            fields: `prompt_tokens`, ..., and this package's `cached_tokens`, `cost_usd` and `cost_is_estimate`; any may be
                missing.

        Returns:
            The usage.
        """
        return cls(
            input_tokens=fields.get("prompt_tokens"),
            output_tokens=fields.get("completion_tokens"),
            cached_input_tokens=fields.get("cached_tokens"),
            cost_usd=fields.get("cost_usd"),
            cost_is_estimate=bool(fields.get("cost_is_estimate")),
            input_token_details=as_mapping(fields.get("prompt_tokens_details")),
            output_token_details=as_mapping(fields.get("completion_tokens_details")),
        )

    @classmethod
    def from_langchain(cls, message: Any) -> "Usage":
        """Read usage of a LangChain message.

        Args:
            message: An `AIMessage` or a chunk of one, with `usage_metadata` and, of our models, the cost in `response_metadata`.

        Returns:
            The usage.
        """
        counts, metadata = as_mapping(message.usage_metadata), as_mapping(message.response_metadata)
        return cls(
            input_tokens=counts.get("input_tokens"),
            output_tokens=counts.get("output_tokens"),
            cached_input_tokens=as_mapping(counts.get("input_token_details")).get("cache_read"),
            cost_usd=metadata.get("cost_usd"),
            cost_is_estimate=bool(metadata.get("cost_is_estimate")),
        )

    def __add__(self, other: "Usage") -> "Usage":
        """Add up the usage of two replies; what neither reports stays unknown."""
        return Usage(
            input_tokens=_known(add, self.input_tokens, other.input_tokens),
            output_tokens=_known(add, self.output_tokens, other.output_tokens),
            cached_input_tokens=_known(add, self.cached_input_tokens, other.cached_input_tokens),
            cost_usd=_known(add, self.cost_usd, other.cost_usd),
            cost_is_estimate=self.cost_is_estimate or other.cost_is_estimate,
            input_token_details=_known_details(add, self.input_token_details, other.input_token_details),
            output_token_details=_known_details(add, self.output_token_details, other.output_token_details),
        )

    def merge(self, later: "Usage") -> "Usage":
        """Merge a later report of the same reply. A reported cost beats an estimated one.

        Providers repeat the counts as they grow, and one sends zeros at the end (Cloudflare /ai/v1), so the larger
        number of each field is right: neither the last nor the sum.

        Args:
            later: The report that arrived after this one.

        Returns:
            The merged usage.
        """
        known = [usage for usage in (self, later) if usage.cost_usd is not None]
        cost = max(known, key=lambda usage: (not usage.cost_is_estimate, usage.cost_usd), default=later)
        return Usage(
            input_tokens=_known(max, self.input_tokens, later.input_tokens),
            output_tokens=_known(max, self.output_tokens, later.output_tokens),
            cached_input_tokens=_known(max, self.cached_input_tokens, later.cached_input_tokens),
            cost_usd=cost.cost_usd,
            cost_is_estimate=cost.cost_is_estimate,
            input_token_details=_known_details(max, self.input_token_details, later.input_token_details),
            output_token_details=_known_details(max, self.output_token_details, later.output_token_details),
        )


NO_USAGE = Usage()
"""Where nothing is reported; the counts are unknown."""


def _known(
    operation: Callable[[_Number, _Number], _Number], first: _Number | None, second: _Number | None
) -> _Number | None:
    """Combine two numbers; where one is unknown, the result is the other."""
    if first is None or second is None:
        return second if first is None else first
    return operation(first, second)


def _known_details(
    operation: Callable[[int, int], int], first: Mapping[str, int], second: Mapping[str, int]
) -> Mapping[str, int]:
    """Combine counts by name."""
    if not first or not second:
        return second or first
    return {
        **first,
        **{name: operation(first[name], count) if name in first else count for name, count in second.items()},
    }
