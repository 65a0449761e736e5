"""The batch API of a hosted model: many requests as one job, which is answered within a day at a lower price.

What is done, in which order, is written once as generators that yield calls and seconds to wait (`Steps`), and run with or without
an event loop. A job is created once: where no answer tells whether it was, the provider's list of batches is searched for its file.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NoReturn, Self, TypeAlias, TypeVar

import httpx
from typing_extensions import override

from llama_vision.adaptation.pipeline import AdaptedRequest, aadapt_request, adapt_request
from llama_vision.adaptation.validate import validate_request
from llama_vision.backends.http.backend import HttpBackend
from llama_vision.backends.http.call import HttpConfig, PreparedCall
from llama_vision.backends.http.retry import RetryState
from llama_vision.backends.limits import LimitedBackend, estimate_cost
from llama_vision.core.backend import AttachErrorContext, Backend
from llama_vision.core.errors import (
    BatchError,
    ConfigurationError,
    ConnectionFailedError,
    LlamaVisionError,
    RequestTimeoutError,
    ServerError,
    StatusError,
    StreamError,
    UnsupportedInputError,
)
from llama_vision.core.models import Price
from llama_vision.core.reply import Reply
from llama_vision.core.request import ChatRequest
from llama_vision.dialects.chat_completions import batches as wire
from llama_vision.dialects.chat_completions.batches import WireBatch, WireResult
from llama_vision.dialects.dialect import WireRequest
from llama_vision.providers import PROVIDERS
from llama_vision.providers.credentials import aask_for_key, ask_for_key, resolve_account_id, resolve_api_key
from llama_vision.providers.provider import BatchApi, Provider

_FIRST_POLL_S, _LONGEST_POLL_S = 0.2, 60.0
_MAX_FAILED_POLLS = 10  # in a row: some ten minutes without the provider end a wait, and not the job

_LINE_BYTES = 120  # of a line beside its body

_Given = TypeVar("_Given")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Send:
    """A call to the provider; `once` where it may not be repeated blindly."""

    request: WireRequest
    once: bool = False


Steps: TypeAlias = Generator[Send | float, bytes, _Result]
"""What is to be done: calls, whose bodies are sent back, and seconds to wait."""

Row: TypeAlias = Reply | LlamaVisionError
"""The result of one request."""


@dataclass(frozen=True, slots=True)
class EncodedRequest:
    """A request of a batch.

    Attributes:
        body: As the provider takes it for a single call.
        estimate_usd: What it may cost at most; 0 without a budget.
    """

    body: bytes = field(repr=False)
    estimate_usd: float = 0.0


class BatchClient:
    """The batch API of one model at one provider."""

    def __init__(self, backend: Backend, template: ChatRequest) -> None:
        """Use the batch API of a backend.

        Args:
            backend: Of a hosted provider; its key, address, timeouts, retries and budget hold.
            template: A request whose model, tools and stop strings are those of all requests.

        Raises:
            UnsupportedInputError: It has no batch API.
        """
        self._limited: LimitedBackend | None = None
        self._http = self._unwrap(backend)
        config = self._http.config
        api = config.provider.batch
        if api is None:
            _refuse(f"{config.provider.title} has no batch API")
        self.api: BatchApi = api
        self._config: HttpConfig = replace(config, provider=_at_discount(config.provider, api.discount))
        self._template = template

    def __repr__(self) -> str:
        return f"BatchClient({self._http!r})"

    def _unwrap(self, backend: Backend) -> HttpBackend:
        while not isinstance(backend, HttpBackend):
            if isinstance(backend, LimitedBackend):
                self._limited = backend
            inner: Backend | None = getattr(backend, "wrapped", None)
            if inner is None:
                _refuse("A batch goes to one hosted provider")
            backend = inner
        return backend

    def submit(self, requests: Sequence[ChatRequest]) -> WireBatch:
        """Upload requests and start a batch of them.

        Args:
            requests: At least one. All are checked and encoded before anything is sent.

        Raises:
            LlamaVisionError: A request can't be sent, and the text begins with its place, as in `inputs[3]`; there are too
                many for one batch; or the provider refuses it.
        """
        self._check(requests)
        key = ask_for_key(self._config.api_key)
        encoded: list[EncodedRequest] = []
        for index, request in enumerate(requests):
            with _at(index):
                self._append(encoded, self._encode(request, self._adapt(request, key)))
        return self.run(self.submission(encoded))

    async def asubmit(self, requests: Sequence[ChatRequest]) -> WireBatch:
        """As `submit`, without blocking the event loop."""
        self._check(requests)
        key = await aask_for_key(self._config.api_key)
        encoded: list[EncodedRequest] = []
        for index, request in enumerate(requests):
            with _at(index):
                self._append(encoded, await self.aencode(request, key))
        return await self.arun(self.submission(encoded))

    async def aencode(self, request: ChatRequest, api_key: str | None = None) -> EncodedRequest:
        """Adapt and encode a request as for a single call.

        Raises:
            LlamaVisionError: It can't be sent.
        """
        config = self._config
        key = await aask_for_key(config.api_key) if api_key is None else api_key
        adapted = await aadapt_request(
            config.provider, request, config.images, api_key=key, account_id=config.account_id
        )
        return self._encode(request, adapted)

    def fits(self, encoded: Sequence[EncodedRequest], further: EncodedRequest) -> bool:
        """Tell whether a batch of `encoded` takes a further request."""
        limit = self.api.max_file_bytes
        size = sum(len(each.body) + _LINE_BYTES for each in (*encoded, further))
        return len(encoded) < self.api.max_requests and (limit is None or size <= limit)

    def _check(self, requests: Sequence[ChatRequest]) -> None:
        if len(requests) > self.api.max_requests:
            raise UnsupportedInputError(
                f"{len(requests)} requests are too many: {self._config.provider.title} takes {self.api.max_requests} in a "
                "batch. Make several of them."
            )
        for index, request in enumerate(requests):
            with _at(index):
                validate_request(self._config.provider, request)

    def _adapt(self, request: ChatRequest, api_key: str | None) -> AdaptedRequest:
        config = self._config
        return adapt_request(
            config.provider, request, config.images, api_key=api_key, account_id=config.account_id
        )

    def _encode(self, request: ChatRequest, adapted: AdaptedRequest) -> EncodedRequest:
        budget = self._limited is not None and self._limited.has_budget
        estimate = estimate_cost(self._config.provider, request) if budget else 0.0
        return EncodedRequest(self._config.dialect.encode(adapted.request, stream=False).body, estimate)

    def _append(self, encoded: list[EncodedRequest], further: EncodedRequest) -> None:
        if not self.fits(encoded, further):
            raise UnsupportedInputError(
                f"The requests up to this one have more than {(self.api.max_file_bytes or 0) / 1e6:.0f} MB, which is all that "
                f"{self._config.provider.title} takes in a batch. Make several of them."
            )
        encoded.append(further)

    # What is done.

    def submission(self, encoded: Sequence[EncodedRequest]) -> Steps[WireBatch]:
        """Upload requests and start a batch of them, within the budget."""
        with self.budget(encoded):
            file_id = yield from self.upload(encoded)
            return (yield from self.create(file_id))

    def budget(self, encoded: Sequence[EncodedRequest]) -> contextlib.AbstractContextManager[None]:
        """Count requests, while they are submitted, with their estimates; see `LimitedBackend.batch`."""
        if self._limited is None:
            return contextlib.nullcontext()
        return self._limited.batch(sum(each.estimate_usd for each in encoded))

    def upload(self, encoded: Sequence[EncodedRequest]) -> Steps[str]:
        """Upload requests, and return the file's id. Nothing is asked yet."""
        answer = yield Send(wire.upload_file(self.api.endpoint, [each.body for each in encoded]))
        return wire.parse_file_id(answer)

    def create(self, file_id: str) -> Steps[WireBatch]:
        """Start the batch of a file, once: where it is not known whether it was, it is looked for."""
        retries = RetryState(self._config.max_retries)
        while True:
            try:
                return wire.parse_batch(
                    (yield Send(wire.create_batch(self.api.endpoint, file_id), once=True))
                )
            except (ConnectionFailedError, RequestTimeoutError, StatusError, StreamError) as error:
                refused = isinstance(error, StatusError)
                if not refused or isinstance(error, ServerError):
                    with _unclear(file_id):
                        if (found := (yield from self.find(file_id))) is not None:
                            return found
                        if not refused:
                            raise  # it may be started even now
                yield retries.next_delay(error)

    def find(self, file_id: str) -> Steps[WireBatch | None]:
        """Find the batch of a file; None where there is none."""
        after = None
        while after != "":
            batches, after = wire.parse_batches((yield Send(wire.list_batches(after or ""))))
            for batch in batches:
                if batch.input_file_id == file_id:
                    return batch
        return None

    def get(self, batch_id: str) -> Steps[WireBatch]:
        """Look after a batch."""
        return wire.parse_batch((yield Send(wire.get_batch(batch_id))))

    def cancel(self, batch_id: str) -> Steps[WireBatch]:
        """Cancel a batch; its requests under way are finished and billed."""
        return wire.parse_batch((yield Send(wire.cancel_batch(batch_id))))

    def wait(
        self, batch_id: str, timeout: float | None, on_status: Callable[[WireBatch], object] | None = None
    ) -> Steps[WireBatch]:
        """Wait until a batch is done, looking after it at intervals that grow up to a minute."""
        expires = math.inf if timeout is None else time.monotonic() + timeout
        delay, failures = _FIRST_POLL_S, 0
        while True:
            try:
                batch = yield from self.get(batch_id)
                failures = 0
            except LlamaVisionError as error:
                failures += 1
                if not error.retryable or failures >= _MAX_FAILED_POLLS:
                    raise
            else:
                if on_status is not None:
                    on_status(batch)
                if batch.done:
                    return batch
            if time.monotonic() + delay > expires:
                raise RequestTimeoutError(
                    f"The batch {batch_id} is not done yet. It goes on: ask for its results later."
                )
            yield delay
            delay = min(_LONGEST_POLL_S, delay * 1.5)

    def results(self, batch: WireBatch, num_requests: int | None) -> Steps[list[Row]]:
        """Download the results of a batch that is done, in the order of its requests."""
        rows: dict[int, Row] = {}
        for file_id in batch.result_file_ids:
            content = yield Send(wire.get_file(file_id))
            for line in filter(bytes.strip, content.split(b"\n")):
                result = wire.parse_result(line)
                rows[result.index] = self._row(result)
        count = num_requests or batch.num_requests or max(rows, default=-1) + 1
        if not count:
            raise self._not_answered(batch.status, batch.errors)
        return [
            rows[index] if index in rows else self._not_answered(batch.status, batch.errors)
            for index in range(count)
        ]

    def _row(self, result: WireResult) -> Row:
        call = self._prepare(Send(WireRequest("")))  # key and account are out of the content already
        errors = self._config.dialect.errors
        try:
            status = result.status_code
            if status is None:
                if (code := result.error_code.removeprefix("batch_")) in ("cancelled", "expired"):
                    return self._not_answered(code)
                found = errors.find(result.body)
                status = httpx.codes.INTERNAL_SERVER_ERROR if found is None else found.status_code
            response = httpx.Response(status, content=result.body)
            if response.is_success:
                return call.open_reply(response).decode_body(result.body)
            error: LlamaVisionError = call.error_from_response(response, result.body)
        except LlamaVisionError as malformed:
            error = malformed
        return error.with_context(self._config.provider.name, self._template.model)

    def _not_answered(self, status: str, reason: str = "") -> BatchError:
        error = BatchError(f"This request was not answered: it is {status}. {reason}".strip())
        error.status = status
        error.with_context(self._config.provider.name, self._template.model)
        return error

    # How it is done, with or without an event loop.

    def run(self, steps: Steps[_Result]) -> _Result:
        """Run steps to their end."""
        with self._context(), contextlib.closing(steps):
            try:
                step = next(steps)
                while True:
                    try:
                        answer = self._perform(step)
                    except LlamaVisionError as error:
                        step = steps.throw(error)
                    else:
                        step = steps.send(answer)
            except StopIteration as done:
                return done.value

    async def arun(self, steps: Steps[_Result]) -> _Result:
        """As `run`, without blocking the event loop."""
        with self._context(), contextlib.closing(steps):
            try:
                step = next(steps)
                while True:
                    try:
                        answer = await self._aperform(step)
                    except LlamaVisionError as error:
                        step = steps.throw(error)
                    else:
                        step = steps.send(answer)
            except StopIteration as done:
                return done.value

    def _perform(self, step: Send | float) -> bytes:
        if not isinstance(step, Send):
            time.sleep(step)
            return b""
        call = self._call(step, ask_for_key(self._config.api_key))
        return call.redact(self._http.send(call))

    async def _aperform(self, step: Send | float) -> bytes:
        if not isinstance(step, Send):
            await asyncio.sleep(step)
            return b""
        call = self._call(step, await aask_for_key(self._config.api_key))
        return call.redact(await self._http.asend(call))

    def _call(self, send: Send, api_key: str | None) -> PreparedCall:
        config = self._config
        return self._prepare(
            send,
            api_key=resolve_api_key(config.provider, api_key),
            account_id=resolve_account_id(config.provider, config.account_id),
        )

    def _prepare(
        self, send: Send, *, api_key: str | None = None, account_id: str | None = None
    ) -> PreparedCall:
        config, template = self._config, self._template
        adapted = AdaptedRequest(
            template,
            text_parsed_tools=template.text_parsed_tools,
            stop_strings=template.stop if config.provider.client_side_stop else (),
            api_key=api_key,
            account_id=account_id,
        )
        deadline = math.inf if config.deadline is None else time.monotonic() + config.deadline
        return PreparedCall(
            config, adapted, stream=False, deadline=deadline, wire=send.request, once=send.once
        )

    def _context(self) -> AttachErrorContext:
        return AttachErrorContext(self._config.provider.name, self._template.model)


class BatchJob(Generic[_Result]):
    """A batch at a provider.

    It goes on there without this process: keep its `id`, and make the job again with the model's `batch_job(id)`.

    Attributes:
        id: Its id.
        batch: What the provider said of it last; None before the first `refresh`.
    """

    def __init__(
        self,
        client: BatchClient,
        batch: WireBatch | str,
        convert: Callable[[Row], _Result | LlamaVisionError],
        *,
        num_requests: int | None = None,
        errors: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> None:
        """Take a batch.

        Args:
            client: Of its provider and model.
            batch: The batch, or its id.
            convert: Makes of a reply, or of a request's error, what the framework has for it.
            num_requests: How many requests it has, where that is known.
            errors: What errors are raised within.

        Raises:
            ConfigurationError: It is no id.
        """
        self.id: str = batch if isinstance(batch, str) else batch.id
        self.batch: WireBatch | None = None if isinstance(batch, str) else batch
        self._client = client
        self._convert = convert
        self._num_requests = num_requests
        self._errors = errors
        self._rows: list[Row] | None = None
        if not wire.is_id(self.id):
            raise ConfigurationError(f"{self.id!r} is no id of a batch.")

    @property
    def status(self) -> str:
        """What the provider said last: `validating`, `in_progress`, `finalizing`, `completed`, `failed`, `expired`, `cancelling`, `cancelled`."""
        return "" if self.batch is None else self.batch.status

    @property
    def done(self) -> bool:
        """Whether nothing more happens to it: results can be had without waiting."""
        return self.batch is not None and self.batch.done

    def __repr__(self) -> str:
        if self.batch is None:
            return f"<BatchJob {self.id}>"
        done = self.batch.num_completed + self.batch.num_failed
        of = f", {done} of {self.batch.num_requests}" if self.batch.num_requests else ""
        return f"<BatchJob {self.id}: {self.status}{of}>"

    @override
    def __getstate__(self) -> NoReturn:
        raise TypeError("A job holds the model's key. Keep its id: the model's batch_job(id) makes it again.")

    def refresh(self) -> Self:
        """Ask the provider how far it is; see `status`, `done` and `batch`.

        Raises:
            LlamaVisionError: The provider can't be asked, or knows no such batch.
        """
        with self._errors():
            self.batch = self._client.run(self._client.get(self.id))
        return self

    async def arefresh(self) -> Self:
        """As `refresh`."""
        with self._errors():
            self.batch = await self._client.arun(self._client.get(self.id))
        return self

    def cancel(self) -> Self:
        """Cancel it. What is answered by then is billed and among the results; the others are a `BatchError` each."""
        with self._errors():
            self.batch = self._client.run(self._client.cancel(self.id))
        return self

    async def acancel(self) -> Self:
        """As `cancel`."""
        with self._errors():
            self.batch = await self._client.arun(self._client.cancel(self.id))
        return self

    def results(self, *, timeout: float | None = None) -> list[_Result | LlamaVisionError]:
        """Wait until it is done, and download the results.

        Args:
            timeout: Seconds to wait for; None waits until it is done, a day at most.

        Returns:
            An entry for each request, in their order: the reply, or the error why there is none.

        Raises:
            RequestTimeoutError: It is not done in time. It goes on, and can be asked again.
            BatchError: It failed its validation, and how many requests it had is not known here.
            LlamaVisionError: The provider can't be asked, or knows no such batch.
        """
        with self._errors():
            if self._rows is None:
                self._rows = self._client.run(self._collect(timeout))
            return list(map(self._convert, self._rows))

    async def aresults(self, *, timeout: float | None = None) -> list[_Result | LlamaVisionError]:  # noqa: ASYNC109 - as `results`
        """As `results`."""
        with self._errors():
            if self._rows is None:
                self._rows = await self._client.arun(self._collect(timeout))
            return list(map(self._convert, self._rows))

    def _collect(self, timeout: float | None) -> Steps[list[Row]]:
        batch = self.batch if self.batch is not None and self.batch.done else None
        if batch is None:
            batch = yield from self._client.wait(self.id, timeout)
        self.batch = batch
        return (yield from self._client.results(batch, self._num_requests))


def build_requests(inputs: Iterable[_Given], build: Callable[[_Given], ChatRequest]) -> list[ChatRequest]:
    """Build the requests of a batch.

    Raises:
        ConfigurationError: There are none.
        LlamaVisionError: One can't be built; the text begins with its place.
    """
    requests: list[ChatRequest] = []
    for index, given in enumerate(inputs):
        with _at(index):
            requests.append(build(given))
    if not requests:
        raise ConfigurationError("There are no inputs to make a batch of.")
    return requests


@contextlib.contextmanager
def _at(index: int) -> Generator[None]:
    """Let an error's text begin with the place of the request."""
    try:
        yield
    except LlamaVisionError as error:
        error.args = (f"inputs[{index}]: {error.args[0]}", *error.args[1:])
        raise


@contextlib.contextmanager
def _unclear(file_id: str) -> Generator[None]:
    """Let an error say what is not known."""
    try:
        yield
    except LlamaVisionError as error:
        said = f"{error.args[0]} Whether the batch of the file {file_id} was started is not known."
        error.args = (said, *error.args[1:])
        raise


def _at_discount(provider: Provider, discount: float) -> Provider:
    """Lower a provider's prices."""

    def lowered(price: Price | None) -> Price | None:
        rest = 1 - discount
        return price and Price(price.input_per_million * rest, price.output_per_million * rest)

    return replace(
        provider, models=tuple(replace(model, price=lowered(model.price)) for model in provider.models)
    )


def _refuse(reason: str) -> NoReturn:
    known = ", ".join(name for name, provider in PROVIDERS.items() if provider.batch is not None)
    raise UnsupportedInputError(
        f"{reason}. Use provider= one of {known}, or ask several at once: batch() of LangChain, concurrency= of captions."
    )
