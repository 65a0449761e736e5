"""DeepInfra as it documents itself: https://deepinfra.com/meta-llama/Llama-3.2-11B-Vision-Instruct/api, deepinfra.com/docs.

The error shapes are those of its OpenAPI file and of reports by its users.
"""

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from tests.emulator.answers import Answer, error_body, event_stream, json_answer
from tests.emulator.batches import Batches
from tests.emulator.chat_checks import Rules, WrongRequestError, check_body
from tests.emulator.chat_completions import chunks
from tests.emulator.chat_model import reply_to
from tests.emulator.image_checks import JPEG_PNG_WEBP
from tests.emulator.received import Received

MODELS = ("meta-llama/Llama-3.2-11B-Vision-Instruct", "meta-llama/Llama-3.2-90B-Vision-Instruct")

# `OpenAIChatCompletionsIn` of its OpenAPI file, and https://deepinfra.com/docs for the images.
RULES = Rules(
    ranges={
        "temperature": (0, 2),
        "top_p": (1e-9, 1),
        "min_p": (0, 1),
        "top_k": (0, 999),
        "max_tokens": (0, 1_000_000),
        "n": (1, 4),
        "frequency_penalty": (-2, 2),
        "presence_penalty": (-2, 2),
        "repetition_penalty": (0.01, 5),
        "seed": (-(2**63), 2**64 - 1),
    },
    image_types=JPEG_PNG_WEBP,
)


@dataclass(frozen=True)
class DeepInfra:
    """Chat completions in DeepInfra's manner: the role on every chunk, usage with its cost on the last."""

    base_path: str = "/v1/openai"
    call_paths: tuple[str, ...] = ("/chat/completions",)
    batches: Batches = field(default_factory=lambda: Batches(most_requests=50_000, most_bytes=200_000_000))

    def refuse_key(self, received: Received, api_key: str | None) -> Answer | None:
        """Check the key alone."""
        if api_key is not None and received.headers.get("authorization") != f"Bearer {api_key}":
            return json_answer({"detail": {"error": "Not authenticated"}}, 401)
        return None

    def refuse(self, received: Received, api_key: str | None) -> Answer | None:
        """See `Dialect.refuse`."""
        if refused := self.refuse_key(received, api_key):
            return refused
        if not received.headers.get("content-type", "").startswith("application/json"):
            return json_answer({"detail": "Unsupported Media Type"}, 415)
        try:
            check_body(received.body, RULES)
        except ValueError as error:
            return _unprocessable(str(error), "value_error.jsondecode")
        except WrongRequestError as wrong:
            if wrong.status == 422:
                return _unprocessable(wrong.message, wrong.kind, *wrong.place)
            return json_answer(error_body(wrong.message), wrong.status)
        return None if received.body["model"] in MODELS else json_answer({"error": "Model not found"}, 404)

    def reply(self, received: Received) -> dict[str, Any]:
        """See `Dialect.reply`."""
        return reply_to(received.body)

    def encode(self, reply: dict[str, Any], received: Received) -> Answer:
        """See `Dialect.encode`. Usage comes in streams too, unless it is declined."""
        body = received.body
        reply = {**reply, "model": reply.get("model") or body["model"]}
        if not body.get("stream"):
            return json_answer(reply)
        include_usage = (body.get("stream_options") or {}).get("include_usage", True)
        return event_stream(*chunks(reply, include_usage=include_usage), "[DONE]")

    def error(self, status: int, message: str = "", code: int | None = None) -> Answer:
        """See `Dialect.error`."""
        return json_answer(error_body(message or HTTPStatus(status).phrase, code=code), status)

    def lost(self, status: int, path: str) -> Answer:
        """See `Dialect.lost`. Said as FastAPI says it, which DeepInfra runs on."""
        return json_answer({"detail": HTTPStatus(status).phrase}, status)

    def headers(self, received: Received) -> dict[str, str]:
        """See `Dialect.headers`."""
        return {}


def _unprocessable(message: str, kind: str, *place: str | int) -> Answer:
    return json_answer({"detail": [{"loc": ["body", *place], "msg": message, "type": kind}]}, 422)
