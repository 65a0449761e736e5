"""Routes: several providers that stand in for each other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

from llama_vision.core.errors import (
    ConfigurationError,
    ConnectionFailedError,
    InsufficientCreditsError,
    LlamaVisionError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StreamError,
    UnsupportedInputError,
)
from llama_vision.providers import find_provider
from llama_vision.providers.provider import Provider

FAILOVER_ERRORS: tuple[type[LlamaVisionError], ...] = (
    ConnectionFailedError,
    RequestTimeoutError,
    RateLimitError,
    InsufficientCreditsError,
    ServerError,
    StreamError,
    UnsupportedInputError,
)
"""After these, and before the first token, the next provider takes over. A wrong key, an unknown model or a request that
is refused is raised: it is a mistake to mend, which another provider's reply would hide."""


@dataclass(frozen=True, slots=True)
class Target:
    """One provider of a route.

    Attributes:
        provider: Its name, or a record.
        model: The model there; None takes the one that is asked for, by its name at this provider.
        base_url: In place of that of the environment and of the record.
        weight: How often it comes first, relative to the weights of the others; see `Route`.
    """

    provider: str | Provider
    model: str | None = None
    base_url: str | None = None
    weight: float | None = None

    @property
    def record(self) -> Provider:
        """The provider's record."""
        return find_provider(self.provider)

    def model_id(self, requested: str, first: Provider) -> str:
        """Return the model's id here.

        Args:
            requested: The id of the requested model, at the route's first provider.
            first: That provider.

        Returns:
            The id.
        """
        if self.model is not None:
            return self.record.model_info(self.model).id
        return self.record.model_info(first.model_info(requested).name).id


@dataclass(frozen=True, slots=True)
class Route:
    """Several providers: where one fails before the first token, the next one takes over.

    Attributes:
        targets: Providers' names, their records or `Target`s, in the order in which they are asked. Where any has a weight,
            the order is drawn by weight for each call; a target without one counts 1.
        first_token_timeout: Seconds after which the next one takes over, if no token has arrived; None for no limit of its
            own. With it, and with `hedge_after`, whole replies are requested as streams.
        hedge_after: Seconds after which the next one is asked as well, if no token has arrived: the first to answer counts,
            the other is dropped, and may be billed. None asks one at a time.
        max_failures: After this many failures in a row a target is left out for `cool_down`. Then one call tries it.
        cool_down: Seconds. A provider's own Retry-After counts where it is longer.
        failover_on: The errors after which the next one takes over.

    Raises:
        UnknownProviderError: There is no provider of one of these names.
        ConfigurationError: There is no target, or a number can't be.
    """

    targets: Sequence[str | Provider | Target]
    first_token_timeout: float | None = None
    hedge_after: float | None = None
    max_failures: int = 3
    cool_down: float = 30.0
    failover_on: tuple[type[LlamaVisionError], ...] = FAILOVER_ERRORS

    def __post_init__(self) -> None:
        # A string is a sequence too, of letters.
        given = (self.targets,) if isinstance(self.targets, str) else tuple(self.targets)
        targets = tuple(target if isinstance(target, Target) else Target(target) for target in given)
        object.__setattr__(self, "targets", targets)
        if not targets:
            raise ConfigurationError("A route has no provider: name at least one.")
        for target in targets:
            _ = target.record
            if target.weight is not None and not 0 <= target.weight < math.inf:
                raise ConfigurationError(f"The weight of {target.record.name} has to be 0 or more.")
        if any(target.weight is not None for target in targets) and not any(map(_weight, targets)):
            raise ConfigurationError("All weights of the route are 0.")
        for name in ("first_token_timeout", "hedge_after"):
            seconds = getattr(self, name)
            if seconds is not None and not 0 < seconds < math.inf:
                raise ConfigurationError(
                    f"{name}={seconds!r} has to be a number of seconds above 0, or None."
                )
        if self.max_failures < 1 or not 0 <= self.cool_down < math.inf:
            raise ConfigurationError("max_failures has to be 1 or more, and cool_down 0 or more seconds.")

    @property
    def all_targets(self) -> tuple[Target, ...]:
        """The targets, each as a `Target`."""
        return cast("tuple[Target, ...]", self.targets)

    @property
    def first(self) -> Provider:
        """The provider whose names of models and abilities count where a request is made."""
        return self.all_targets[0].record

    @property
    def name(self) -> str:
        """All names as one, such as `deepinfra,local`."""
        return ",".join(self.names)

    @property
    def names(self) -> list[str]:
        """The providers' names, in order."""
        return [target.record.name for target in self.all_targets]

    @property
    def is_weighted(self) -> bool:
        """Whether the order is drawn for each call."""
        return any(target.weight is not None for target in self.all_targets)


def _weight(target: Target) -> float:
    return 1.0 if target.weight is None else target.weight


def weights(targets: Sequence[Target]) -> list[float]:
    """Return the weights of targets; one without counts 1."""
    return list(map(_weight, targets))


ProviderChoice: TypeAlias = str | Provider | Route | Sequence[str | Provider | Target]
"""What `provider=` takes: a name, a record, several of either, or a `Route`."""


def resolve_provider(choice: ProviderChoice) -> Provider | Route:
    """Find the record of a provider, or make the route of several.

    Raises:
        UnknownProviderError: There is no provider of this name, or of one of these.
        ConfigurationError: The list is empty.
    """
    if isinstance(choice, (str, Provider)):  # a union of types would be made anew in each call
        return find_provider(choice)
    return choice if isinstance(choice, Route) else Route(choice)


def first_provider(choice: ProviderChoice) -> Provider:
    """Return the record of a provider, or of the first of several; errors as `resolve_provider`."""
    if isinstance(choice, str):
        return find_provider(choice)
    resolved = resolve_provider(choice)
    return resolved.first if isinstance(resolved, Route) else resolved
