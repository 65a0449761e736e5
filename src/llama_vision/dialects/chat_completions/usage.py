"""Token counts and costs, wherever a provider reports them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llama_vision.core.json_types import as_mapping
from llama_vision.core.usage import NO_USAGE, Usage
from llama_vision.dialects.chat_completions.wire import WireCompletion, WireUsage


@dataclass(frozen=True, slots=True)
class CostField:
    """A field of a usage object, or a response header, that holds the cost of a reply.

    Attributes:
        name: Of the field, or of the header in lower case.
        usd_per_unit: US dollars for one unit of its value.
        is_estimate: Whether the bill may differ.
    """

    name: str
    usd_per_unit: float = 1.0
    is_estimate: bool = False


@dataclass(frozen=True, slots=True)
class UsageFormat:
    """Where a provider reports usage.

    Attributes:
        paths: Keys that lead to usage objects beside `usage`, in a whole body or in a chunk.
        cost_fields: Fields of a usage object that hold the cost; the first that is present counts.
        cost_headers: The same of response headers.
    """

    paths: tuple[tuple[str, ...], ...] = ()
    cost_fields: tuple[CostField, ...] = (CostField("cost"),)
    cost_headers: tuple[CostField, ...] = ()

    def parse_headers(self, headers: Mapping[str, str]) -> Usage:
        """Read the cost in the response headers (names in lower case); unknown where there is none."""
        return _cost(self.cost_headers, headers)

    def parse(self, completion: WireCompletion) -> Usage | None:
        """Merge all usage objects of a payload; None where there are none.

        Raises:
            pydantic.ValidationError: One holds something else than numbers.
        """
        extras = completion.model_extra
        if completion.usage is None and not extras:  # most chunks
            return None
        found = [] if completion.usage is None else [completion.usage]
        for path in self.paths if extras else ():
            fields: Any = extras
            for key in path:
                fields = as_mapping(fields).get(key)
            if fields is not None:
                found.append(WireUsage.model_validate(fields))
        usage: Usage | None = None
        for wire in found:
            usage = self._to_usage(wire) if usage is None else usage.merge(self._to_usage(wire))
        return usage

    def _to_usage(self, wire: WireUsage) -> Usage:
        cost = _cost(self.cost_fields, wire.model_extra) if wire.model_extra else NO_USAGE
        input_details = _details(wire.prompt_tokens_details) if wire.prompt_tokens_details else {}
        output_details = _details(wire.completion_tokens_details) if wire.completion_tokens_details else {}
        return Usage(
            input_tokens=_count(wire.prompt_tokens),
            output_tokens=_count(wire.completion_tokens),
            cached_input_tokens=input_details.pop("cached_tokens", None),
            cost_usd=cost.cost_usd,
            cost_is_estimate=cost.cost_is_estimate,
            input_token_details=input_details,
            output_token_details=output_details,
        )


def _cost(sources: tuple[CostField, ...], fields: Mapping[str, Any]) -> Usage:
    for source in sources:
        value = fields.get(source.name)
        if value is not None and (amount := _finite(value)) is not None:
            return Usage(cost_usd=amount * source.usd_per_unit, cost_is_estimate=source.is_estimate)
    return NO_USAGE


def _details(value: Any) -> dict[str, int]:
    """Read the counts of an object; what is no count is left out, since servers put objects there, too."""
    counts = {
        name: _count(number) for name, number in as_mapping(value).items() if not isinstance(number, bool)
    }
    return {name: count for name, count in counts.items() if count is not None}


def _count(value: Any) -> int | None:
    number = _finite(value)
    return None if number is None else int(number)


def _finite(value: Any) -> float | None:
    """Read a number; None for NaN and Infinity, which Python's json module writes, and for what is no number."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
