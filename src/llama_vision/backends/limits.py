"""Limits of an app's own: what calls may cost, how many a minute, and how many at once."""

import asyncio
import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any, Self

from typing_extensions import override

from llama_vision.adaptation.token_estimate import estimate_tokens
from llama_vision.core.backend import AttachErrorContext, Backend
from llama_vision.core.errors import (
    BudgetExceededError,
    ConfigurationError,
    LlamaVisionError,
    RequestTimeoutError,
    StreamError,
)
from llama_vision.core.events import Event, UsageReport
from llama_vision.core.reply import Reply
from llama_vision.core.request import ChatRequest
from llama_vision.core.usage import Usage
from llama_vision.providers.provider import Provider

_MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What calls may cost and how many there may be; None sets no limit.

    Attributes:
        max_cost_usd: US dollars of all calls together. A call that could exceed it is not sent.
        requests_per_minute: Calls in any 60 seconds; the others wait.
        max_concurrency: Calls at once; the others wait.

    Raises:
        ConfigurationError: One of them can't be.
    """

    max_cost_usd: float | None = None
    requests_per_minute: int | None = None
    max_concurrency: int | None = None

    def __post_init__(self) -> None:
        if self.max_cost_usd is not None and not 0 <= self.max_cost_usd < math.inf:
            raise ConfigurationError(
                f"max_cost_usd={self.max_cost_usd!r} has to be a number of US dollars from 0 on."
            )
        for name in ("requests_per_minute", "max_concurrency"):
            value: object = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= 1):
                raise ConfigurationError(f"{name}={value!r} has to be a whole number from 1 on.")

    def __bool__(self) -> bool:
        return (self.max_cost_usd, self.requests_per_minute, self.max_concurrency) != (None, None, None)


class CallCounters:
    """What the calls of a model, or of a run, have cost so far, and which are under way.

    It belongs to one process: a pickled copy begins with the cost so far, and without calls.

    Attributes:
        spent_usd: What the replies cost: reported, else estimated; a call whose reply never arrived but may be billed
            counts with its estimate.
    """

    def __init__(self) -> None:
        self.spent_usd = 0.0
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._reserved_usd = 0.0
        self._num_running = 0
        self._sent: deque[float] = deque()
        self._waiting: deque[Future[None]] = deque()

    @override
    def __getstate__(self) -> dict[str, Any]:
        return {"spent_usd": self.spent_usd}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.spent_usd = state["spent_usd"]
        self._begin()

    def reserve(self, estimate_usd: float, max_cost_usd: float) -> None:
        """Set the estimated cost of a call aside.

        Args:
            estimate_usd: What it may cost at most.
            max_cost_usd: The budget.

        Raises:
            BudgetExceededError: It could cost more than is left.
        """
        with self._lock:
            spent, reserved = self.spent_usd, self._reserved_usd
            if spent + reserved + estimate_usd <= max_cost_usd:
                self._reserved_usd += estimate_usd
                return
        running = f" and ${reserved:.6f} set aside for calls under way" if reserved else ""
        error = BudgetExceededError(
            f"This call may cost ${estimate_usd:.6f}, and of max_cost_usd={max_cost_usd:g} ${spent:.6f} are spent{running}. "
            "Nothing was sent. Raise max_cost_usd, or lower max_tokens."
        )
        error.spent_usd, error.estimate_usd, error.max_cost_usd = spent, estimate_usd, max_cost_usd
        raise error

    def settle(self, estimate_usd: float, cost_usd: float) -> None:
        """Count what a call cost in place of what was set aside for it.

        Args:
            estimate_usd: What was set aside.
            cost_usd: What it cost.
        """
        with self._lock:
            self._reserved_usd = max(0.0, self._reserved_usd - estimate_usd)
            self.spent_usd += cost_usd

    def enter(self, max_concurrency: int) -> "Future[None]":
        """Wait for a turn; calls begin in the order in which they came.

        Args:
            max_concurrency: Calls at a time.

        Returns:
            A future that is done once the call may begin.
        """
        turn: Future[None] = Future()
        with self._lock:
            if self._num_running < max_concurrency and not self._waiting:
                self._num_running += 1
                turn.set_result(None)
            else:
                self._waiting.append(turn)
        return turn

    def leave(self) -> None:
        """End a call, and let the next one begin."""
        with self._lock:
            while self._waiting:
                turn = self._waiting.popleft()
                if turn.set_running_or_notify_cancel():
                    turn.set_result(None)
                    return
            self._num_running -= 1

    def abandon(self, turn: "Future[None]") -> None:
        """Give up waiting.

        Args:
            turn: The future of `enter`.
        """
        if not turn.cancel() and not turn.cancelled():
            self.leave()  # it was its turn already

    def take_slot(self, requests_per_minute: int, max_wait: float = math.inf) -> float | None:
        """Take the next free slot of the rate.

        Args:
            requests_per_minute: The rate.
            max_wait: Seconds that the call can wait at most.

        Returns:
            The seconds until the slot; None where that is too long, and none is taken.
        """
        with self._lock:
            now = time.monotonic()
            while self._sent and self._sent[0] <= now - _MINUTE_S:
                self._sent.popleft()
            if len(self._sent) < requests_per_minute:
                at = now
            else:
                at = max(now, self._sent[-requests_per_minute] + _MINUTE_S)
            if at - now >= max_wait:
                return None
            self._sent.append(at)
            return at - now


class LimitedBackend:
    """Another backend within limits."""

    def __init__(
        self,
        provider: Provider,
        create: Callable[[float | None], Backend],
        limits: Limits,
        counters: CallCounters,
        deadline: float | None = None,
    ) -> None:
        """Put limits on a backend.

        Args:
            provider: Whose prices count.
            create: Creates the backend, whose calls have to end within these seconds.
            limits: The limits.
            counters: Of all calls that share them.
            deadline: Seconds of a whole call, its waiting included; None for no limit.
        """
        self._provider = provider
        self._create = create
        self._limits = limits
        self._counters = counters
        self._deadline = deadline

    @property
    def wrapped(self) -> Backend:
        """The other backend."""
        return self._create(self._deadline)

    @property
    def has_budget(self) -> bool:
        """Whether what calls may cost is limited."""
        return self._limits.max_cost_usd is not None

    @contextlib.contextmanager
    def batch(self, estimate_usd: float) -> Generator[None]:
        """Count a batch, while it is submitted, with its estimate: what it costs is known a day later.

        Args:
            estimate_usd: Of all its calls.

        Raises:
            BudgetExceededError: It could cost more than is left.
        """
        if self._limits.max_cost_usd is None:
            yield
            return
        self._counters.reserve(estimate_usd, self._limits.max_cost_usd)
        cost = 0.0
        try:
            yield
            cost = estimate_usd
        finally:
            self._counters.settle(estimate_usd, cost)

    def __repr__(self) -> str:
        return f"LimitedBackend({self._create(None)!r}, {self._limits!r})"

    def complete(self, request: ChatRequest) -> Reply:
        """Answer as a whole; see `Backend.complete`."""
        with self._admission(request) as call:
            call.wait()
            reply = self._create(call.remaining()).complete(request)
            call.usage = reply.usage
            return reply

    async def acomplete(self, request: ChatRequest) -> Reply:
        """Answer as a whole, without blocking the event loop; see `Backend.acomplete`."""
        with self._admission(request) as call:
            await call.await_turn()
            reply = await self._create(call.remaining()).acomplete(request)
            call.usage = reply.usage
            return reply

    def stream(self, request: ChatRequest) -> Generator[Event]:
        """Answer as a stream of events; see `Backend.stream`."""
        with self._admission(request) as call:
            call.wait()
            events = self._create(call.remaining()).stream(request)
            try:
                for event in events:
                    if isinstance(event, UsageReport):
                        call.usage = event.usage
                    yield event
            finally:
                events.close()

    async def astream(self, request: ChatRequest) -> AsyncGenerator[Event]:
        """Answer as a stream of events, without blocking the event loop; see `Backend.astream`."""
        with self._admission(request) as call:
            await call.await_turn()
            events = self._create(call.remaining()).astream(request)
            try:
                async for event in events:
                    if isinstance(event, UsageReport):
                        call.usage = event.usage
                    yield event
            finally:
                await events.aclose()

    def close(self) -> None:
        """Close the backend."""
        self._create(None).close()

    async def aclose(self) -> None:
        """Close the backend."""
        await self._create(None).aclose()

    def _admission(self, request: ChatRequest) -> "_Admission":
        expires = math.inf if self._deadline is None else time.monotonic() + self._deadline
        estimate = 0.0 if self._limits.max_cost_usd is None else estimate_cost(self._provider, request)
        where = (self._provider.name, request.model)
        return _Admission(self._limits, self._counters, estimate, expires, where)


def estimate_cost(provider: Provider, request: ChatRequest) -> float:
    """Estimate what a call may cost at most, with `max_tokens` of reply.

    Returns:
        US dollars; 0 for a model on this machine.

    Raises:
        ConfigurationError: The model has no price in the provider's record.
    """
    if provider.dialect is None:
        return 0.0
    price = provider.model_info(request.model).price
    tokens = Usage(estimate_tokens(request.messages, request.tools), request.sampling.max_tokens)
    cost = None if price is None else price.estimate(tokens)
    if cost is None:
        raise ConfigurationError(
            f"max_cost_usd can't be kept: {request.model} has no price in the record of {provider.title}. Pass a record "
            "with one: dataclasses.replace(model, price=Price(...))."
        ).with_context(provider.name, request.model)
    return cost


class _Admission:
    """One call within limits: waits for its turn, and settles its cost."""

    def __init__(
        self,
        limits: Limits,
        counters: CallCounters,
        estimate: float,
        expires: float,
        where: tuple[str, str],
    ) -> None:
        self._limits = limits
        self._counters = counters
        self._estimate = estimate
        self._expires = expires
        self._where = where
        self._entered = self._sent = False
        self.usage = Usage()

    def __enter__(self) -> Self:
        if self._limits.max_cost_usd is not None:
            with AttachErrorContext(*self._where):
                self._counters.reserve(self._estimate, self._limits.max_cost_usd)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._entered:
            self._counters.leave()
        if self._limits.max_cost_usd is not None:
            self._counters.settle(self._estimate, self._cost(error))

    def remaining(self) -> float | None:
        """Return the seconds that are left, and note that the call is sent."""
        self._sent = True
        return None if self._expires == math.inf else max(0.001, self._expires - time.monotonic())

    def wait(self) -> None:
        """Wait for the call's turn."""
        if self._limits.max_concurrency is not None:
            turn = self._counters.enter(self._limits.max_concurrency)
            try:
                turn.result(None if self._expires == math.inf else self._expires - time.monotonic())
            except FutureTimeoutError:
                self._counters.abandon(turn)
                raise _overdue() from None
            except BaseException:
                self._counters.abandon(turn)
                raise
            self._entered = True
        if self._limits.requests_per_minute is not None:
            time.sleep(self._slot(self._limits.requests_per_minute))

    async def await_turn(self) -> None:
        """As `wait`."""
        if self._limits.max_concurrency is not None:
            turn = self._counters.enter(self._limits.max_concurrency)
            if not turn.done():
                try:
                    async with asyncio.timeout(
                        None if self._expires == math.inf else self._expires - time.monotonic()
                    ):
                        await asyncio.wrap_future(turn)
                except TimeoutError:
                    self._counters.abandon(turn)
                    raise _overdue() from None
                except BaseException:
                    self._counters.abandon(turn)
                    raise
            self._entered = True
        if self._limits.requests_per_minute is not None:
            await asyncio.sleep(self._slot(self._limits.requests_per_minute))

    def _slot(self, requests_per_minute: int) -> float:
        seconds = self._counters.take_slot(requests_per_minute, self._expires - time.monotonic())
        if seconds is None:
            raise _overdue()
        return seconds

    def _cost(self, error: BaseException | None) -> float:
        """Return what the call cost, or the estimate where that is not known and it may be billed."""
        usage = self.usage
        if isinstance(error, LlamaVisionError) and error.partial is not None:
            usage = usage.merge(error.partial.usage)
        if usage.cost_usd is not None:
            return usage.cost_usd
        refused = isinstance(error, LlamaVisionError) and not isinstance(
            error, RequestTimeoutError | StreamError
        )
        return 0.0 if refused or not self._sent else self._estimate


def _overdue() -> RequestTimeoutError:
    return RequestTimeoutError(
        "The call's deadline=... has passed while it waited for max_concurrency or requests_per_minute. Nothing was sent."
    )
