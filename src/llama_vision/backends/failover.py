"""Failover: a backend made of several, of which the next one takes over where one fails before the first token."""

import asyncio
import contextlib
import contextvars
import math
import queue
import random
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeAlias, TypeVar

from llama_vision.backends.circuit_breaker import CircuitBreaker, shared_breaker
from llama_vision.core.backend import Backend
from llama_vision.core.errors import (
    ConnectionFailedError,
    LlamaVisionError,
    RequestTimeoutError,
    StatusError,
    StreamError,
    UnsupportedInputError,
)
from llama_vision.core.events import (
    Event,
    Finished,
    MetadataReport,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)
from llama_vision.core.reply import Reply, ReplyBuilder
from llama_vision.core.request import ChatRequest
from llama_vision.providers.route import Route, Target, weights

_BACKOFF_S = 0.5
_MAX_WAIT_S = 60.0
"""A longer cool-down of all targets is not waited for."""

CreateBackend: TypeAlias = Callable[[float | None], Backend]
"""Creates the backend of a target, whose calls have to end within these seconds."""


@dataclass(frozen=True, slots=True)
class Member:
    """A target with its backend.

    Attributes:
        target: The provider.
        create: Creates its backend, which does not retry.
        identity: What shares a circuit breaker: address, account and key, as a hash.
    """

    target: Target
    create: CreateBackend
    identity: Hashable = field(repr=False)

    @property
    def name(self) -> str:
        """The provider's name."""
        return self.target.record.name


@dataclass(frozen=True, slots=True, eq=False)
class _Candidate:
    """A member that a call may go to, with the request for it."""

    member: Member
    request: ChatRequest
    breaker: CircuitBreaker


@dataclass(frozen=True, slots=True, eq=False)
class _Attempt:
    """A call to one candidate."""

    candidate: _Candidate
    backend: Backend
    started: float = field(default_factory=time.monotonic)

    @property
    def request(self) -> ChatRequest:
        return self.candidate.request


class _FailoverCall:
    """Decides who is asked next; sync and async share it. It sends nothing, and waits for nothing."""

    def __init__(
        self,
        route: Route,
        members: Sequence[Member],
        request: ChatRequest,
        max_retries: int,
        deadline: float | None,
    ) -> None:
        self._route = route
        self._expires = math.inf if deadline is None else time.monotonic() + deadline
        self._rounds_left = max_retries
        self._rounds = 0
        self._order = [_candidate(member, request, route) for member in _draw_order(route, members)]
        self._remaining = list(self._order)
        self._errors: list[LlamaVisionError] = []
        self.tried: list[dict[str, Any]] = []

    def next_attempt(self) -> _Attempt | float:
        """Return the next attempt, or the seconds to wait before the next round.

        Raises:
            LlamaVisionError: Nobody is left: the reason.
        """
        if (attempt := self.try_next()) is not None:
            return attempt
        delay = self._round_delay()
        if not self._order or not self._rounds_left or delay > _MAX_WAIT_S or self._is_late(delay):
            raise self._final_error()
        self._rounds_left -= 1
        self._rounds += 1
        self._remaining = list(self._order)
        return delay

    def try_next(self) -> _Attempt | None:
        """Return the next attempt of this round; None where nobody is left that may be asked now."""
        while self._remaining:
            candidate = self._remaining.pop(0)
            if candidate.breaker.try_acquire(self._route.cool_down):
                left = None if self._expires == math.inf else max(0.001, self._expires - time.monotonic())
                return _Attempt(candidate, candidate.member.create(left))
        return None

    def late(self, attempt: _Attempt) -> RequestTimeoutError:
        """Make the error of an attempt whose first token is late."""
        error = RequestTimeoutError(
            f"No token within first_token_timeout={self._route.first_token_timeout:g}."
        )
        return error.with_context(attempt.candidate.member.name, attempt.request.model)

    def failed(self, attempt: _Attempt, error: LlamaVisionError) -> None:
        """Note a failure, and raise it where nobody takes over."""
        self._record(attempt, error)
        if not isinstance(error, UnsupportedInputError):
            self._count(attempt, error)
        if _has_content(error.partial) or not isinstance(error, self._route.failover_on):
            raise self._with_tried(error)
        self._errors.append(error)
        # As without a route: what may have been billed is not asked for again, nor what will fail again.
        if not (error.retryable and isinstance(error, ConnectionFailedError | StatusError)):
            self._order.remove(attempt.candidate)
        if self._is_late(0):
            raise self._final_error()

    def answered(self, attempt: _Attempt) -> None:
        """Note that a target answers."""
        attempt.candidate.breaker.record_success()

    def dropped(self, attempt: _Attempt) -> None:
        """Note an attempt that another one has overtaken."""
        self.tried.append(_describe(attempt, "Overtaken", may_be_billed=True))

    def broke_off(self, attempt: _Attempt, error: LlamaVisionError) -> LlamaVisionError:
        """Note a failure after the first token, and return it with what was tried."""
        self._record(attempt, error)
        self._count(attempt, error)
        return self._with_tried(error)

    def metadata(self, attempt: _Attempt) -> dict[str, Any]:
        """Return who answered, and who was tried before."""
        tried: dict[str, Any] = {"tried": list(self.tried)} if self.tried else {}
        return {"provider": attempt.candidate.member.name, **tried}

    def _count(self, attempt: _Attempt, error: LlamaVisionError) -> None:
        """Count what is the target's fault; a request that it refuses is not."""
        if error.retryable or isinstance(error, (StreamError, *self._route.failover_on)):
            attempt.candidate.breaker.record_failure(
                error, max_failures=self._route.max_failures, cool_down=self._route.cool_down
            )

    def _record(self, attempt: _Attempt, error: LlamaVisionError) -> None:
        billed = isinstance(error, RequestTimeoutError | StreamError)
        entry = _describe(attempt, type(error).__name__, may_be_billed=billed)
        if isinstance(error, StatusError) and error.status_code:
            entry["status_code"] = error.status_code
        self.tried.append(entry)

    def _is_late(self, delay: float) -> bool:
        return time.monotonic() + delay >= self._expires

    def _round_delay(self) -> float:
        """Return the seconds until somebody may be asked again, with jitter."""
        backoff = _BACKOFF_S * 2 ** min(self._rounds, 10) * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
        waits = [candidate.breaker.remaining() for candidate in self._order]
        return max(backoff, min(waits, default=0.0))

    def _final_error(self) -> LlamaVisionError:
        """Return the reason: what a target said, rather than that it can't express the request."""
        if not self._errors:
            soonest = min(self._order, key=lambda candidate: candidate.breaker.remaining())
            return soonest.breaker.refusal().with_context(soonest.member.name, soonest.request.model)
        reasons = [error for error in self._errors if not isinstance(error, UnsupportedInputError)]
        error = self._with_tried((reasons or self._errors)[-1])
        if len(self.tried) > 1:
            tried = ", ".join(f"{entry['provider']} ({entry['error']})" for entry in self.tried)
            error.args = (f"{error.args[0] if error.args else ''} All were asked: {tried}.",)
        return error

    def _with_tried(self, error: LlamaVisionError) -> LlamaVisionError:
        error.tried = tuple(self.tried)
        return error


def _candidate(member: Member, request: ChatRequest, route: Route) -> _Candidate:
    adapted = replace(request, model=member.target.model_id(request.model, route.first))
    return _Candidate(member, adapted, shared_breaker((member.identity, adapted.model)))


def _describe(attempt: _Attempt, error: str, *, may_be_billed: bool) -> dict[str, Any]:
    return {
        "provider": attempt.candidate.member.name,
        "model": attempt.request.model,
        "error": error,
        "seconds": round(time.monotonic() - attempt.started, 3),
        "may_be_billed": may_be_billed,
    }


def _draw_order(route: Route, members: Sequence[Member]) -> list[Member]:
    """Draw the order by weight, without replacement; those of weight 0 come last."""
    if not route.is_weighted:
        return list(members)
    keys = [
        random.expovariate(weight) if weight else math.inf
        for weight in weights([member.target for member in members])
    ]
    return [members[index] for index in sorted(range(len(members)), key=keys.__getitem__)]


def _has_content(partial: Reply | None) -> bool:
    return partial is not None and bool(partial.text or partial.tool_calls or partial.reasoning)


def _is_token(event: Event) -> bool:
    return isinstance(event, TextDelta | ToolCallDelta | ReasoningDelta | Finished)


class _Head:
    """The beginning of a stream up to its first token, which a thread reads, or its failure."""

    def __init__(self, attempt: _Attempt, done: "queue.SimpleQueue[_Head]") -> None:
        self.attempt = attempt
        self.events = attempt.backend.stream(attempt.request)
        self.beginning: list[Event] = []
        self.failure: BaseException | None = None
        self._lock = threading.Lock()
        self._is_done = self._is_dropped = False
        # In a copy of the context, so that what traces HTTP requests finds its parent.
        run = contextvars.copy_context().run
        thread = threading.Thread(
            target=run, args=(self._read, done), name="llama-vision failover", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # the system has none to spare
            self._is_done, self.failure = True, ConnectionFailedError(f"It can't be asked: {error}.")
            done.put(self)

    def _read(self, done: "queue.SimpleQueue[_Head]") -> None:
        try:
            self.beginning = _read_head(self.events)
        except BaseException as failure:  # noqa: BLE001 - raised again in the thread that asked
            self.failure = failure
        with self._lock:  # one of the two threads closes the stream
            self._is_done, is_dropped = True, self._is_dropped
        if is_dropped:
            self.events.close()
        done.put(self)

    def drop(self) -> None:
        """Close the stream, at once or as soon as its thread lets go of it."""
        with self._lock:
            self._is_dropped, is_done = True, self._is_done
        if is_done:
            self.events.close()


def _read_head(events: Generator[Event]) -> list[Event]:
    beginning: list[Event] = []
    for event in events:
        beginning.append(event)
        if _is_token(event):
            break
    return beginning


async def _aread_head(events: AsyncGenerator[Event]) -> list[Event]:
    beginning: list[Event] = []
    async for event in events:
        beginning.append(event)
        if _is_token(event):
            break
    return beginning


class _AsyncHead:
    """The beginning of a stream up to its first token, which a task reads."""

    def __init__(self, attempt: _Attempt) -> None:
        self.attempt = attempt
        self.events = attempt.backend.astream(attempt.request)
        self.task = asyncio.create_task(_aread_head(self.events))

    async def drop(self) -> None:
        """Cancel the task and close the stream."""
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await self.task
        await self.events.aclose()


_AnyHead = TypeVar("_AnyHead", _Head, _AsyncHead)


class _Race(Generic[_AnyHead]):
    """The attempts of one call that are under way together, without I/O.

    Attributes:
        running: Those whose first token, or whose failure, is waited for.
    """

    def __init__(self, route: Route, call: _FailoverCall, first: _AnyHead) -> None:
        self._route = route
        self._call = call
        self._hedge_at = math.inf if route.hedge_after is None else first.attempt.started + route.hedge_after
        self.running = [first]

    def wait(self) -> float | None:
        """Return the seconds until a token is late or the next one is to be asked; None for ever."""
        limit = self._route.first_token_timeout or math.inf
        until = min(self._hedge_at, *(head.attempt.started + limit for head in self.running))
        return None if until == math.inf else max(0.0, until - time.monotonic())

    def take_late(self) -> list[_AnyHead]:
        """Remove and return the attempts whose first token is late."""
        oldest = time.monotonic() - (self._route.first_token_timeout or math.inf)
        late = [head for head in self.running if head.attempt.started <= oldest]
        self.running = [head for head in self.running if head not in late]
        return late

    def next_hedge(self) -> _Attempt | None:
        """Return the attempt that is to be made beside the first, once, when it is time."""
        if not self.running or time.monotonic() < self._hedge_at:
            return None
        self._hedge_at = math.inf
        return self._call.try_next()

    def has_token(self, head: _AnyHead, failure: BaseException | None) -> bool:
        """Take an attempt that is done out of the race, and return whether it has won."""
        if head not in self.running:  # it was late before
            return False
        self.running.remove(head)
        if failure is None:
            self._call.answered(head.attempt)
            return True
        if not isinstance(failure, LlamaVisionError):
            raise failure
        self._call.failed(head.attempt, failure)
        return False


class FailoverBackend:
    """Several backends as one; see `Route`."""

    def __init__(
        self,
        route: Route,
        members: Sequence[Member],
        *,
        max_retries: int,
        deadline: float | None = None,
    ) -> None:
        """Take the members.

        Args:
            route: Their route.
            members: One for each of its targets.
            max_retries: How often all of them are asked again, once all have failed.
            deadline: Seconds of a whole call, with all its attempts; None for no limit.
        """
        self._route = route
        self._members = tuple(members)
        self._max_retries = max_retries
        self._deadline = deadline

    def __repr__(self) -> str:
        return f"FailoverBackend({', '.join(member.name for member in self._members)})"

    def complete(self, request: ChatRequest) -> Reply:
        """Answer as a whole; see `Backend.complete`."""
        if self._reads_heads:
            with contextlib.closing(self.stream(request)) as events:
                return Reply.from_events(events)
        call = self._call(request)
        while True:
            attempt = call.next_attempt()
            if not isinstance(attempt, _Attempt):
                time.sleep(attempt)
                continue
            try:
                reply = attempt.backend.complete(attempt.request)
            except LlamaVisionError as error:
                call.failed(attempt, error)
                continue
            call.answered(attempt)
            return replace(reply, metadata={**reply.metadata, **call.metadata(attempt)})

    async def acomplete(self, request: ChatRequest) -> Reply:
        """Answer as a whole, without blocking the event loop; see `Backend.acomplete`."""
        if self._reads_heads:
            builder = ReplyBuilder()
            async with contextlib.aclosing(self.astream(request)) as events:
                async for event in events:
                    builder.add(event)
            return builder.reply()
        call = self._call(request)
        while True:
            attempt = call.next_attempt()
            if not isinstance(attempt, _Attempt):
                await asyncio.sleep(attempt)
                continue
            try:
                reply = await attempt.backend.acomplete(attempt.request)
            except LlamaVisionError as error:
                call.failed(attempt, error)
                continue
            call.answered(attempt)
            return replace(reply, metadata={**reply.metadata, **call.metadata(attempt)})

    def stream(self, request: ChatRequest) -> Generator[Event]:
        """Answer as a stream of events; see `Backend.stream`."""
        call = self._call(request)
        attempt, beginning, events = self._open(call)
        with contextlib.closing(events):
            yield from _with_metadata(beginning, call.metadata(attempt))
            try:
                yield from events
            except LlamaVisionError as error:
                raise call.broke_off(attempt, error) from error.__cause__

    async def astream(self, request: ChatRequest) -> AsyncGenerator[Event]:
        """Answer as a stream of events, without blocking the event loop; see `Backend.astream`."""
        call = self._call(request)
        attempt, beginning, events = await self._aopen(call)
        async with contextlib.aclosing(events):
            for event in _with_metadata(beginning, call.metadata(attempt)):
                yield event
            try:
                async for event in events:
                    yield event
            except LlamaVisionError as error:
                raise call.broke_off(attempt, error) from error.__cause__

    def close(self) -> None:
        """Close all members."""
        for member in self._members:
            member.create(None).close()

    async def aclose(self) -> None:
        """As `close`."""
        for member in self._members:
            await member.create(None).aclose()

    @property
    def _reads_heads(self) -> bool:
        return self._route.first_token_timeout is not None or self._route.hedge_after is not None

    def _call(self, request: ChatRequest) -> _FailoverCall:
        return _FailoverCall(self._route, self._members, request, self._max_retries, self._deadline)

    def _open(self, call: _FailoverCall) -> tuple[_Attempt, list[Event], Generator[Event]]:
        """Begin streams until one has a token."""
        while True:
            attempt = call.next_attempt()
            if not isinstance(attempt, _Attempt):
                time.sleep(attempt)
                continue
            if self._reads_heads:
                if (opened := self._race(call, attempt)) is not None:
                    return opened
                continue
            events = attempt.backend.stream(attempt.request)
            try:
                beginning = _read_head(events)
            except LlamaVisionError as error:
                call.failed(attempt, error)
                continue
            call.answered(attempt)
            return attempt, beginning, events

    def _race(
        self, call: _FailoverCall, attempt: _Attempt
    ) -> tuple[_Attempt, list[Event], Generator[Event]] | None:
        """Read the first token in a thread, and where it is late also that of the next one; None where all fail."""
        done: queue.SimpleQueue[_Head] = queue.SimpleQueue()
        race = _Race(self._route, call, _Head(attempt, done))
        try:
            while race.running:
                try:
                    head = done.get(timeout=race.wait())
                except queue.Empty:
                    for late in race.take_late():
                        late.drop()
                        call.failed(late.attempt, call.late(late.attempt))
                    if (hedge := race.next_hedge()) is not None:
                        race.running.append(_Head(hedge, done))
                    continue
                if race.has_token(head, head.failure):
                    return head.attempt, head.beginning, head.events
        finally:
            for head in race.running:
                head.drop()
                call.dropped(head.attempt)
        return None

    async def _aopen(self, call: _FailoverCall) -> tuple[_Attempt, list[Event], AsyncGenerator[Event]]:
        """As `_open`."""
        while True:
            attempt = call.next_attempt()
            if not isinstance(attempt, _Attempt):
                await asyncio.sleep(attempt)
                continue
            if self._reads_heads:
                if (opened := await self._arace(call, attempt)) is not None:
                    return opened
                continue
            events = attempt.backend.astream(attempt.request)
            try:
                beginning = await _aread_head(events)
            except LlamaVisionError as error:
                call.failed(attempt, error)
                continue
            call.answered(attempt)
            return attempt, beginning, events

    async def _arace(
        self, call: _FailoverCall, attempt: _Attempt
    ) -> tuple[_Attempt, list[Event], AsyncGenerator[Event]] | None:
        """As `_race`, with tasks."""
        race = _Race(self._route, call, _AsyncHead(attempt))
        try:
            while race.running:
                tasks = {head.task: head for head in race.running}
                done, _ = await asyncio.wait(tasks, timeout=race.wait(), return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if race.has_token(head := tasks[task], task.exception()):
                        return head.attempt, task.result(), head.events
                if not done:
                    for late in race.take_late():
                        await late.drop()
                        call.failed(late.attempt, call.late(late.attempt))
                    if (hedge := race.next_hedge()) is not None:
                        race.running.append(_AsyncHead(hedge))
        finally:
            for head in race.running:
                await head.drop()
                call.dropped(head.attempt)
        return None


def _with_metadata(beginning: list[Event], metadata: dict[str, Any]) -> list[Event]:
    """Insert who answered behind the first event, which is `Started`."""
    return [*beginning[:1], MetadataReport(metadata), *beginning[1:]]
