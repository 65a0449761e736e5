"""Facts about models."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from llama_vision.core.usage import Usage

_HUB_ID = "meta-llama/Llama-3.2-{}B-Vision-Instruct"

RESPONSE_FORMATS = frozenset({"json_object", "json_schema"})

CONTEXT_WINDOW = 131_072
"""Llama 3.2 Vision's own limit in tokens, prompt and reply together (Meta's model card)."""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens, from the provider's price list."""

    input_per_million: float
    output_per_million: float

    def estimate(self, usage: Usage) -> float | None:
        """Estimate the cost of a reply.

        Args:
            usage: Its token counts.

        Returns:
            US dollars; None where a count is missing.
        """
        if usage.input_tokens is None or usage.output_tokens is None:
            return None
        input_cost = usage.input_tokens * self.input_per_million
        return (input_cost + usage.output_tokens * self.output_per_million) / 1_000_000


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model at one provider.

    Attributes:
        name: Our name for it, such as `llama-3.2-11b-vision`.
        id: The provider's name for it.
        context_window: Maximum tokens of prompt and reply together.
        max_output_tokens: Maximum tokens of one reply; None where no limit is documented.
        tools: Whether it takes tool definitions.
        response_formats: The types of `response_format` it takes beside plain text.
        enforces_schema: Whether `json_schema` constrains decoding, so that the reply always conforms.
        price: From the provider's price list; None where there is none.
        deprecation: Why it may no longer be served, in the provider's words; empty where it is offered.
    """

    name: str
    id: str
    context_window: int = CONTEXT_WINDOW
    max_output_tokens: int | None = None
    tools: bool = True
    response_formats: AbstractSet[str] = RESPONSE_FORMATS
    enforces_schema: bool = False
    price: Price | None = None
    deprecation: str = ""


def llama_vision_models(id_format: str = _HUB_ID, **facts: Any) -> tuple[ModelInfo, ModelInfo]:
    """Make the 11B and the 90B of a provider, whose ids have `{}` for the number, and other fields of `ModelInfo`."""
    small, large = (
        ModelInfo(f"llama-3.2-{size}b-vision", id_format.format(size), **facts) for size in (11, 90)
    )
    return small, large


LLAMA_11B, LLAMA_90B = llama_vision_models()
