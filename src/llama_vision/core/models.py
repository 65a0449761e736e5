"""What one model can do."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from llama_vision.core.usage import Usage

RESPONSE_FORMATS = frozenset({"json_object", "json_schema"})

CONTEXT_WINDOW = 131_072
"""Llama 3.2 Vision's own limit in tokens, prompt and reply together (Meta's model card)."""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens, from the provider's price list."""

    input_per_million: float
    output_per_million: float

    def estimate(self, usage: Usage) -> float | None:
        """Work out what a reply cost.

        Args:
            usage: Its token counts.

        Returns:
            US dollars, or None where a count is missing.

        """
        if usage.input_tokens is None or usage.output_tokens is None:
            return None
        return (
            usage.input_tokens * self.input_per_million + usage.output_tokens * self.output_per_million
        ) / 1_000_000


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model at one provider.

    Attributes:
        name: What we call it, such as `llama-3.2-11b-vision`.
        id: What the provider calls it.
        context_window: Tokens of prompt and reply together.
        max_output_tokens: The most tokens of one reply; None where no limit is documented.
        tools: Whether it takes tool definitions.
        response_formats: The types of `response_format` it takes beside plain text.
        enforces_schema: Whether `json_schema` truly constrains what it writes, so that the answer always fits.
        price: From the provider's list; None where there is none.
        deprecation: Why it may no longer answer, in the provider's words; empty where it is offered.

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
