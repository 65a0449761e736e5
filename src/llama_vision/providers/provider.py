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
        low: Minimum.
        high: Maximum.
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


def unbounded(*names: str) -> dict[str, Range]:
    """List parameters that exist, of which no range is documented."""
    return dict.fromkeys(names, UNBOUNDED)


@dataclass(frozen=True, slots=True)
class LicenseAgreement:
    """A license that has to be accepted once for each account.

    Attributes:
        url: The text of the license.
        path: Where to accept it, after the base URL; `{account}` and `{model}` are filled in.
        body: The request body that accepts it.

    """

    url: str
    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider's facts.

    Attributes:
        name: The value of `provider=`, such as `deepinfra`.
        title: The name for people to read.
        dialect: The wire format; None for the model on this machine.
        models: Those on offer, the default first.
        base_url: Everything before the dialect's path; None where the user has to give it, and for `local`.
        key_env: Environment variables that may hold the key; the first that is set counts.
        key_page: Where to get a key.
        key_required: Whether nothing works without a key.
        account_env: Environment variables that may hold the account's id, where URLs contain one.
        image_rules: Which images it takes.
        parameters: The documented ones by their names in `core.call_options`, with their ranges (of `stop`: how many).
            Any other is refused. None where there is no such list: all are sent.
        client_side_stop: Whether stop strings are applied on this side, because the provider has none.
        license: What has to be accepted before the first call.
        docs: URL of its own documentation.

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
        """Find a model by our name or the provider's id; an unknown name is passed on as the id."""
        known = next((model for model in self.models if name in (model.name, model.id)), None)
        return known or ModelInfo(name, name)

    def supports(self, parameter: str) -> bool:
        """Tell whether a parameter of `core.call_options` is documented; all are, where there is no list."""
        return self.parameters is None or parameter in self.parameters

    def _repr_html_(self) -> str:
        """Render as a table in a notebook."""
        facts = {
            "provider": self.name,
            "who": self.title,
            "address": self.base_url or "",
            "models": "\n".join(model.name for model in self.models),
            "key": ", ".join(self.key_env) or "none",
            "documentation": self.docs,
        }
        return html_table((), [row for row in facts.items() if row[1]])
