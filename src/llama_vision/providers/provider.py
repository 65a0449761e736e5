"""What a provider is: a frozen record of facts. A difference between providers is a field here, never an `if` further in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from llama_vision.core.formatting import html_table
from llama_vision.core.models import ModelInfo
from llama_vision.dialects.chat_completions.dialect import ChatCompletionsDialect
from llama_vision.dialects.dialect import Dialect
from llama_vision.images.constraints import ImageConstraints


@dataclass(frozen=True, slots=True)
class Range:
    """The documented range of a parameter; with `exclusive_minimum`, `low` itself is too small."""

    low: float
    high: float
    exclusive_minimum: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.exclusive_minimum else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        return f"{'above' if self.exclusive_minimum else 'from'} {self.low:.12g} to {self.high:.12g}"


UNBOUNDED = Range(float("-inf"), float("inf"))
"""The range of a parameter for which none is documented."""


def unbounded(*names: str) -> dict[str, Range]:
    """Make the ranges of parameters for which none is documented."""
    return dict.fromkeys(names, UNBOUNDED)


@lru_cache(maxsize=64)
def _unknown_model(name: str) -> ModelInfo:
    return ModelInfo(name, name)


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
class BatchApi:
    """A batch API in OpenAI's manner: a file of requests, answered within a day at a lower price.

    Attributes:
        discount: The part of the price that is taken off, such as 0.2.
        max_requests: The maximum number of requests of one batch.
        max_file_bytes: The maximum size of their file; None where none is documented.
        endpoint: What each request names as its `url`.
    """

    discount: float
    max_requests: int
    max_file_bytes: int | None = None
    endpoint: str = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider's facts.

    Attributes:
        name: The value of `provider=`, such as `deepinfra`.
        title: The name to display.
        dialect: The wire format, by default that of OpenAI's chat completions; None for the model on this machine.
        models: Those on offer, the default first.
        base_url: Everything before the dialect's path; None where the user has to give it, and for `local`.
        base_url_env: Environment variables that may hold the address.
        base_url_example: What an error shows where the user has to give it.
        base_path: Follows an address that is a host and a port alone, as people write that of a server of their own.
        key_env: Environment variables that may hold the key; the first that is set counts.
        key_page: Where to get a key.
        key_required: Whether every call needs a key.
        key_header: The header that carries it, in lower case.
        key_prefix: What stands before it there.
        account_env: Environment variables that may hold the account's id, where URLs contain one.
        image_rules: Which images it takes.
        parameters: The documented ones by their names in `core.call_options`, with their ranges (of `stop`: how many).
            Any other is refused. None where there is no such list: all are sent.
        client_side_stop: Whether stop strings are applied on this side, because the provider has none.
        strict_by_default: Whether a schema is refused that can't be enforced in full, unless it says `strict=False`.
        parses_text_calls: Whether it takes calls out of the text of a reply itself, as our server does.
        license: What has to be accepted before the first call.
        batch: Its batch API; None without.
        start_command: What starts the server, where people run it themselves.
        docs: URL of its own documentation.
    """

    name: str
    title: str
    dialect: Dialect | None = field(default_factory=ChatCompletionsDialect)
    models: tuple[ModelInfo, ...] = field(kw_only=True)
    base_url: str | None = None
    base_url_env: tuple[str, ...] = ()
    base_url_example: str = "http://localhost:8000/v1"
    base_path: str = ""
    key_env: tuple[str, ...] = ()
    key_page: str | None = None
    key_required: bool = True
    key_header: str = "authorization"
    key_prefix: str = "Bearer "
    account_env: tuple[str, ...] = ()
    image_rules: ImageConstraints = field(default_factory=ImageConstraints)
    parameters: Mapping[str, Range] | None = None
    client_side_stop: bool = False
    strict_by_default: bool = False
    parses_text_calls: bool = False
    license: LicenseAgreement | None = None
    batch: BatchApi | None = None
    start_command: str = ""
    docs: str = ""

    def model_info(self, name: str) -> ModelInfo:
        """Find a model.

        Args:
            name: Our name, or the provider's id.

        Returns:
            The model; of an unknown name, one that is sent as it is.
        """
        for model in self.models:
            if name in (model.name, model.id):
                return model
        return _unknown_model(name)

    def supports(self, parameter: str) -> bool:
        """Return whether a parameter may be sent.

        Args:
            parameter: A name of `core.call_options`.

        Returns:
            Whether it is documented, or there is no list of those that are.
        """
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
