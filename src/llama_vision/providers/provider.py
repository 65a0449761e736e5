"""What a provider is: a frozen record of facts. A difference between providers is a field here, never an `if` further in."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from llama_vision.core.formatting import html_table
from llama_vision.core.models import ModelInfo
from llama_vision.dialects.dialect import Dialect
from llama_vision.images.constraints import ImageConstraints


@dataclass(frozen=True, slots=True)
class Range:
    """The documented range of a parameter.

    Attributes:
        low: The smallest value.
        high: The largest value.
        exclusive_minimum: Whether `low` itself is too small.

    """

    low: float
    high: float
    exclusive_minimum: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.exclusive_minimum else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        return f"{'above' if self.exclusive_minimum else 'from'} {self.low:.12g} to {self.high:.12g}"


UNBOUNDED = Range(float("-inf"), float("inf"))
"""For a parameter that exists, of which no range is documented."""


@dataclass(frozen=True, slots=True)
class LicenseAgreement:
    """A license that has to be accepted once for each account.

    Attributes:
        url: Its text.
        path: Where to say so, after the base URL; `{account}` and `{model}` are filled in.
        body: What to say.

    """

    url: str
    path: str
    body: bytes


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
        account_env: The environment variables that may hold the account's id, where addresses contain one.
        dialect: How it is spoken to; None for the model on this machine.
        models: What it offers, the default first.
        image_rules: Which images it takes.
        parameters: Those it documents, by their names in `core.options`, with their ranges (of `stop`: how many).
            Any other is refused. None where there is no such list: all are sent.
        client_side_stop: Whether stop texts are watched for on this side, because the provider knows none.
        license: What has to be accepted before the first call.
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
    account_env: tuple[str, ...] = ()
    image_rules: ImageConstraints = field(default_factory=ImageConstraints)
    parameters: Mapping[str, Range] | None = None
    client_side_stop: bool = False
    license: LicenseAgreement | None = None
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

    def supports(self, parameter: str) -> bool:
        """Tell whether a parameter can be sent.

        Args:
            parameter: Its name in `core.options`.

        Returns:
            Whether the provider documents it, or has no such list.

        """
        return self.parameters is None or parameter in self.parameters

    def _repr_html_(self) -> str:
        """Show it in a notebook."""
        facts = {
            "provider": self.name,
            "who": self.title,
            "address": self.base_url or "",
            "models": "\n".join(model.name for model in self.models),
            "key": ", ".join(self.key_env) or "none",
            "documentation": self.docs,
        }
        return html_table((), [row for row in facts.items() if row[1]])
