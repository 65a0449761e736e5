"""AIGateway as it documents itself: https://aigateway.sh/reference, its pages on streaming and limits, its OpenAPI file.

The streams are those of https://aigateway.sh/docs/streaming. The names of the errors are those of the model's page; the
reference names some of them otherwise.
"""

import math
import time
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

from tests.emulator.answers import Answer, error_body, event_stream, json_answer
from tests.emulator.batches import Batches
from tests.emulator.chat_checks import Rules, WrongRequestError, check_body
from tests.emulator.chat_completions import deltas, without_cost
from tests.emulator.chat_model import reply_to
from tests.emulator.image_checks import WITH_GIF
from tests.emulator.received import Received

MODEL = "meta/llama-3.2-11b-vision-instruct"
OTHER_MODEL = "moonshot/kimi-k2.6"
_DEFAULT_MAX_TOKENS = 256  # not documented; the host behind it has this default
_MINUTE = 60
RULES = Rules(
    ranges={"temperature": (0, 2), "top_p": (0, 1), "max_tokens": (1, 4096)},
    image_types=WITH_GIF,
    needs_model=False,
)
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_credits",
    404: "not_found",
    429: "rate_limit_error",
    500: "server_error",
    502: "provider_error",
    503: "service_unavailable",
    504: "timeout_error",
}


@dataclass
class AIGateway:
    """Chat completions in AIGateway's manner: chunks of choices only, usage in a chunk without any, costs in cents.

    Attributes:
        requests_per_minute: More than that are refused.
    """

    base_path: str = "/v1"
    call_paths: tuple[str, ...] = ("/chat/completions",)
    requests_per_minute: int = 600
    batches: Batches = field(
        default_factory=lambda: Batches(most_requests=100, created=201, error_rows=False, one_model=False)
    )
    _times: deque[float] = field(default_factory=deque)

    def refuse_key(self, received: Received, api_key: str | None) -> Answer | None:
        """Check the key alone."""
        if api_key is not None and received.headers.get("authorization") != f"Bearer {api_key}":
            return self.error(401, "Invalid or missing API key")
        return None

    def refuse(self, received: Received, api_key: str | None) -> Answer | None:
        """See `Dialect.refuse`."""
        if refused := self.refuse_key(received, api_key):
            return refused
        # Batches don't count: https://aigateway.sh/docs/rate-limits
        if received.method == "POST" and not self._has_room(received.at):
            limited = self.error(
                429, f"Rate limit of {self.requests_per_minute} requests per minute exceeded"
            )
            wait = {"retry-after": str(self._seconds_to_wait(received.at))}
            return replace(limited, headers={**limited.headers, **wait})
        try:
            check_body(received.body, RULES)
        except ValueError as error:
            return self.error(400, str(error))
        except WrongRequestError as wrong:
            place = ".".join(str(step) for step in wrong.place)
            return self.error(400, f"{place}: {wrong.message}" if place else wrong.message)
        model = received.body.get("model")
        if not _is_routed(model) and model != MODEL:
            return self.error(404, f"Unknown model: {model}")
        return None

    def reply(self, received: Received) -> dict[str, Any]:
        """See `Dialect.reply`."""
        return reply_to({"max_tokens": _DEFAULT_MAX_TOKENS, **received.body})

    def encode(self, reply: dict[str, Any], received: Received) -> Answer:
        """See `Dialect.encode`. Where no model is named, a router chooses another one."""
        body = received.body
        routed = _is_routed(body.get("model"))
        headers = {"x-auto-routed": "true"} if routed else {}
        usage, cost = without_cost(reply.get("usage") or {})
        usage = usage if cost is None else {**usage, "cost": cost}
        if body.get("stream"):
            return event_stream(*_events(reply["choices"][0], usage), headers=headers)
        if cost is not None:
            headers["x-cost-cents"] = f"{cost * 100:.9f}"
        model = reply.get("model") or (OTHER_MODEL if routed else body["model"])
        return json_answer({**reply, "model": model, "usage": usage}, headers=headers)

    def error(self, status: int, message: str = "", code: int | None = None) -> Answer:
        """See `Dialect.error`. The code is the status, as a number."""
        message = message or HTTPStatus(status).phrase
        return json_answer(error_body(message, type=_TYPES.get(status, "server_error"), code=status), status)

    def lost(self, status: int, path: str) -> Answer:
        """See `Dialect.lost`."""
        return self.error(status, f"Unknown endpoint: {path}")

    def headers(self, received: Received) -> dict[str, str]:
        """See `Dialect.headers`. An id of the client's is echoed."""
        return {
            "x-request-id": received.headers.get("x-request-id") or f"req_{uuid.uuid4().hex[:16]}",
            "x-ratelimit-limit-requests": str(self.requests_per_minute),
            "x-ratelimit-remaining-requests": str(max(0, self.requests_per_minute - len(self._times))),
            "x-ratelimit-reset-requests": f"{self._seconds_to_wait(time.monotonic())}s",
        }

    def _has_room(self, now: float) -> bool:
        while self._times and self._times[0] <= now - _MINUTE:
            self._times.popleft()
        if len(self._times) >= self.requests_per_minute:
            return False
        self._times.append(now)
        return True

    def _seconds_to_wait(self, now: float) -> int:
        return max(1, math.ceil(self._times[0] + _MINUTE - now)) if self._times else 1


def _is_routed(model: str | None) -> bool:
    return model is None or model in ("auto", "auto/text")


def _events(choice: dict[str, Any], usage: dict[str, Any]) -> Iterator[object]:
    yield _chunk({"role": "assistant"})
    yield b": keep-alive\n\n"
    changes = list(deltas(choice["message"]))
    # The reason rides on the last words, and comes alone after a tool call, as in the two pages that show streams.
    rides = bool(changes) and "content" in changes[-1]
    for delta in changes[:-1] if rides else changes:
        yield _chunk(delta)
    yield _chunk(changes[-1] if rides else {}, choice["finish_reason"])
    if usage:
        yield {"usage": usage}
    yield "[DONE]"


def _chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}
