"""What a provider is: a frozen record of facts. A difference between providers is a field here, never an `if` further in."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from llama_vision.core.models import ModelInfo
from llama_vision.dialects.dialect import Dialect


@dataclass(frozen=True, slots=True)
class ImageRules:
    """Which pictures a provider takes.

    Attributes:
        media_types: The encodings it reads.
        urls: Whether it fetches http(s) addresses itself.
        max_bytes: The largest encoded picture; None where no limit is documented.

    """

    media_types: frozenset[str] = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})
    urls: bool = True
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Range:
    """The documented range of a parameter.

    Attributes:
        low: The smallest value.
        high: The largest value.
        low_excluded: Whether `low` itself is too small.

    """

    low: float
    high: float
    low_excluded: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.low_excluded else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        return f"{'above' if self.low_excluded else 'from'} {self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class Provider:
    """Who speaks what, where.

    Attributes:
        name: What users write, such as `deepinfra`.
        title: What people call it.
        base_url: Everything before the dialect's path; None where the user has to give it, and for `local`.
        key_env: The environment variables that may hold the key, the first one found counts.
        key_page: Where to get a key.
        key_required: Whether nothing works without one.
        dialect: How it is spoken to; None for the model on this machine.
        models: What it offers, the default first.
        image_rules: Which pictures it takes.
        limits: Documented ranges, by the name of the field in `Sampling`.
        docs: Where its own documentation is.

    """

    name: str
    title: str
    dialect: Dialect | None
    models: tuple[ModelInfo, ...]
    base_url: str | None = None
    key_env: tuple[str, ...] = ()
    key_page: str | None = None
    key_required: bool = True
    image_rules: ImageRules = field(default_factory=ImageRules)
    limits: Mapping[str, Range] = field(default_factory=dict[str, Range])
    docs: str = ""

    def model_info(self, name: str) -> ModelInfo:
        """Find a model.

        Args:
            name: Our name for it, or the provider's id.

        Returns:
            What is known; for a name that is not in the record, a `ModelInfo` that passes it on as it is.

        """
        for model in self.models:
            if name in (model.name, model.id):
                return model
        return ModelInfo(name=name, id=name)
