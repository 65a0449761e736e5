"""AI/ML API as it documents itself: docs.aimlapi.com, and the schemas of the two models in github.com/aimlapi/api-docs.

The error texts are those of docs/errors-and-messages; costs and ids those of docs/capabilities/request-tracing-and-cost.
"""

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from tests.emulator.answers import Answer, event_stream, json_answer
from tests.emulator.chat_checks import Rules, WrongRequestError, check_body
from tests.emulator.chat_completions import chunks, without_cost
from tests.emulator.chat_model import reply_to
from tests.emulator.image_checks import WITH_GIF
from tests.emulator.received import Received

_RANGES = {
    "max_tokens": (1, 1_000_000),
    "max_completion_tokens": (1, 1_000_000),
    "temperature": (0, 2),
    "top_p": (0.01, 1),
    "min_p": (0.001, 0.999),
    "n": (1, 1_000_000),
    "seed": (1, 2**63),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
    "top_logprobs": (0, 20),
}
_OF_90B = frozenset({"max_completion_tokens", "response_format"})
# What the schemas list and no more; there are no tools in them.
_PARAMETERS = frozenset(_RANGES) | {
    "model",
    "messages",
    "response_format",
    "stream",
    "stream_options",
    "top_k",
    "stop",
    "repetition_penalty",
    "logprobs",
    "logit_bias",
    "prediction",
}
_RULES_OF_90B = Rules(
    ranges=_RANGES,
    image_types=WITH_GIF,
    roles=("system", "developer", "user", "assistant"),
    tools=False,
    parameters=_PARAMETERS,
    most_image_bytes=1_000_000_000,  # none is documented
    most_stops=4,
)
RULES = {
    "meta-llama/Llama-3.2-11B-Vision-Instruct-Turbo": replace(
        _RULES_OF_90B, parameters=_PARAMETERS - _OF_90B
    ),
    "meta-llama/Llama-3.2-90B-Vision-Instruct-Turbo": _RULES_OF_90B,
}
_DEFAULT_MAX_TOKENS = 512
_CREDITS_PER_USD = 2_000_000  # 2480 credits are 0.00124 dollars in the documentation
_CLIENT_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_NO_KEY = (
    "This request requires a valid API key. You can create a new API key on the Billing page: "
    "https://aimlapi.com/app/keys"
)
_TEXTS = {
    403: "You've run out of credits. Please top up your balance or update your payment method to continue: "
    "https://aimlapi.com/app/billing/",
    429: "Too Many Requests",
    500: "Internal server error",
    503: "Service unavailable",
    504: "Generation timeout",
}


@dataclass(frozen=True)
class AimlApi:
    """Chat completions in AI/ML API's manner: 201, flat errors, the cost in headers or at the end of a stream."""

    base_path: str = "/v1"
    call_paths: tuple[str, ...] = ("/chat/completions",)

    def refuse(self, received: Received, api_key: str | None) -> Answer | None:
        """See `Dialect.refuse`."""
        if api_key is not None and received.headers.get("authorization") != f"Bearer {api_key}":
            return self.error(401, _NO_KEY)
        try:
            body = received.body
        except ValueError as error:
            return self.error(400, str(error))
        model = body.get("model") if isinstance(body, dict) else None
        try:
            check_body(body, RULES.get(model, _RULES_OF_90B))
        except WrongRequestError as wrong:
            return self.error(400, _as_zod_says(wrong, body))
        if model not in RULES:
            return self.error(404, f"The model {model} does not exist")
        return None

    def reply(self, received: Received) -> dict[str, Any]:
        """See `Dialect.reply`. A text is cut after 512 tokens unless the request says otherwise."""
        body = received.body
        most = body.get("max_tokens") or body.get("max_completion_tokens") or _DEFAULT_MAX_TOKENS
        return reply_to({**body, "max_tokens": most})

    def encode(self, reply: dict[str, Any], received: Received) -> Answer:
        """See `Dialect.encode`."""
        body = received.body
        usage, cost = without_cost(reply.get("usage") or {})
        choices = [
            {**choice, "logprobs": None, "message": {"tool_calls": [], **choice["message"]}}
            for choice in reply["choices"]
        ]
        whole = {**reply, "model": reply.get("model") or body["model"], "choices": choices, "usage": usage}
        if body.get("stream"):
            include_usage = (body.get("stream_options") or {}).get("include_usage", False)
            return replace(event_stream(*_events(whole, cost, include_usage=include_usage)), status=201)
        if cost is None:
            return json_answer(whole, 201)
        return json_answer({**whole, **_spent(cost)}, 201, _cost_headers(cost))

    def error(self, status: int, message: str = "", code: int | None = None) -> Answer:
        """See `Dialect.error`. Flat, and with the status as text."""
        return self._flat(status, message or _TEXTS.get(status, ""), self.base_path + self.call_paths[0])

    def lost(self, status: int, path: str) -> Answer:
        """See `Dialect.lost`."""
        return self._flat(404, "Not Found", path)

    def headers(self, received: Received) -> dict[str, str]:
        """See `Dialect.headers`. An id of the client's is echoed, unless its alphabet is wrong."""
        client_id = received.headers.get("x-client-request-id", "")
        echoed = {"x-client-request-id": client_id} if _CLIENT_ID.fullmatch(client_id) else {}
        return {"x-inference-id": uuid.uuid4().hex, **echoed}

    def _flat(self, status: int, message: str, path: str) -> Answer:
        body = {
            "message": message,
            "path": path,
            "requestId": str(uuid.uuid4()),
            "statusCode": str(status),
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        return json_answer(body, status)


def _events(whole: dict[str, Any], cost: float | None, *, include_usage: bool) -> Iterator[object]:
    """Stream; the price is not known when headers are sent, so that it comes last and without choices."""
    yield from chunks(whole, include_usage=include_usage)
    if cost is not None:
        yield _spent(cost)
    yield "[DONE]"


def _spent(cost: float) -> dict[str, Any]:
    return {"meta": {"usage": {"credits_used": round(cost * _CREDITS_PER_USD), "usd_spent": cost}}}


def _cost_headers(cost: float) -> dict[str, str]:
    return {
        "x-aimlapi-credits-used": str(round(cost * _CREDITS_PER_USD)),
        "x-aimlapi-usd-spent": f"{cost:.9f}",
    }


def _as_zod_says(wrong: WrongRequestError, body: Any) -> str:
    """Name the place, what is expected and what was received, as the validator of its server does."""
    for step in wrong.place:
        try:
            body = body[step]
        except (KeyError, IndexError, TypeError):
            body = "undefined"
    place = ".".join(str(step) for step in wrong.place) or "body"
    return f"Body validation error!\nInvalid value at '{place}'. Expected: {wrong.message}, received {str(body)[:80]!r}"
