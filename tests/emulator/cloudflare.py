"""Cloudflare Workers AI as it documents itself: https://developers.cloudflare.com/workers-ai/; both of its chat routes.

`/ai/run/<model>` is its own dialect, and `/ai/v1/chat/completions` the one of chat completions, as it was recorded.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.emulator.answers import Answer, event_stream, json_answer
from tests.emulator.chat_checks import Rules, WrongRequestError, check_body
from tests.emulator.chat_completions import completion, deltas, without_cost
from tests.emulator.chat_model import reply_to
from tests.emulator.cloudflare_checks import (
    DEFAULT_MAX_TOKENS,
    check_context,
    check_native,
    misfit,
    range_faults,
)
from tests.emulator.cloudflare_errors import CloudflareError, envelope, usual_code
from tests.emulator.cloudflare_native import as_chat_completions, events_of, result_of
from tests.emulator.image_checks import WITH_GIF
from tests.emulator.received import Received

ACCOUNT_ID = "0123456789abcdef0123456789abcdef"
MODEL = "@cf/meta/llama-3.2-11b-vision-instruct"
_NO_TOKENS = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
RULES = Rules(ranges={}, image_types=WITH_GIF)


@dataclass
class Cloudflare:
    """The native route and the one of chat completions, of one account.

    Attributes:
        license_accepted: Whether somebody sent the prompt "agree" for the account. Where not, nothing else is answered.
    """

    base_path: str = "/client/v4"
    call_paths: tuple[str, ...] = (
        "/accounts/{account}/ai/run/{model:path}",
        "/accounts/{account}/ai/v1/chat/completions",
    )
    license_accepted: bool = True

    def refuse(self, received: Received, api_key: str | None) -> Answer | None:
        """See `Dialect.refuse`."""
        try:
            self._check_access(received, api_key)
            if _is_native(received):
                self._check_native(received)
            else:
                self._check_chat_completions(received)
        except CloudflareError as error:
            return envelope(error)
        return None

    def reply(self, received: Received) -> dict[str, Any]:
        """See `Dialect.reply`. Images in messages are not read by this model, and the reply is empty."""
        if _is_native(received):
            return reply_to(as_chat_completions(received.body))
        if received.image_urls:
            return completion(None)
        return reply_to({"max_tokens": DEFAULT_MAX_TOKENS, **received.body})

    def encode(self, reply: dict[str, Any], received: Received) -> Answer:
        """See `Dialect.encode`. The native route tells neither model nor id nor why the reply ended."""
        streamed = received.body.get("stream")
        if _is_native(received):
            if streamed:
                return event_stream(*events_of(reply))
            return json_answer({"result": result_of(reply), "success": True, "errors": [], "messages": []})
        usage, _ = without_cost(reply.get("usage") or {})
        whole = {**reply, "model": reply.get("model") or received.body["model"], "usage": usage}
        return event_stream(*_recorded_manner(whole)) if streamed else json_answer(whole)

    def error(self, status: int, message: str = "", code: int | None = None) -> Answer:
        """See `Dialect.error`. A code that is not given is the most usual one of the status."""
        return envelope(CloudflareError(code or usual_code(status), message, status))

    def lost(self, status: int, path: str) -> Answer:
        """See `Dialect.lost`."""
        if status == 405:
            return envelope(CloudflareError(7001, "Method not available for that URI.", 405))
        return envelope(CloudflareError(7000, "No route for that URI", 404))

    def headers(self, received: Received) -> dict[str, str]:
        """See `Dialect.headers`. Every answer of its edge has the ray's id."""
        return {"cf-ray": f"{uuid.uuid4().hex[:16]}-AMS"}

    def _check_access(self, received: Received, api_key: str | None) -> None:
        account = received.path.removeprefix(f"{self.base_path}/accounts/").partition("/")[0]
        if account != ACCOUNT_ID:
            raise CloudflareError(
                7003,
                f"Could not route to {received.path}, perhaps your object identifier is invalid?",
                status=404,
            )
        if api_key is not None and received.headers.get("authorization") != f"Bearer {api_key}":
            raise CloudflareError(10000, status=401)

    def _check_native(self, received: Received) -> None:
        model = received.path.partition("/ai/run/")[2]
        if model != MODEL:
            raise CloudflareError(5007, f"AiError: No such model {model} or task")
        body = _parsed(received)
        if body == {"prompt": "agree"}:
            self.license_accepted = True
        self._check_license()
        check_native(body)

    def _check_chat_completions(self, received: Received) -> None:
        body = _parsed(received)
        self._check_license()
        try:
            check_body(body, RULES)
        except WrongRequestError as wrong:
            place = "/".join(str(step) for step in wrong.place)
            raise CloudflareError(5006, f"AiError: Bad input: Error: '/{place}': {wrong.message}") from None
        for position, message in enumerate(body["messages"]):
            if message.get("content") is None:  # beside tool calls; as five users saw it with other models
                raise misfit([f"Type mismatch of '/messages/{position}/content', 'null' not in 'string'"])
        if faults := list(range_faults({name: value for name, value in body.items() if value is not None})):
            raise misfit(faults)
        if body["model"] != MODEL:
            raise CloudflareError(5007, f"AiError: No such model {body['model']} or task")
        # The model is not in the list of those that have JSON mode.
        if (body.get("response_format") or {}).get("type", "text") != "text":
            raise CloudflareError(5024)
        check_context(body.get("max_tokens") or DEFAULT_MAX_TOKENS)

    def _check_license(self) -> None:
        if not self.license_accepted:
            raise CloudflareError(5016, status=403)


def _is_native(received: Received) -> bool:
    return "/ai/run/" in received.path


def _parsed(received: Received) -> Any:
    try:
        return received.body
    except ValueError:
        raise CloudflareError(3003, "AiError: The request is no JSON") from None


def _recorded_manner(whole: dict[str, Any]) -> Iterator[object]:
    """Stream as the route of chat completions was recorded in May 2026: the end comes twice, first with the counts."""
    head = {
        "id": whole["id"],
        "created": whole["created"],
        "model": whole["model"],
        "object": "chat.completion.chunk",
    }
    choice = whole["choices"][0]
    for delta in deltas(choice["message"]):
        yield {**head, "choices": [{"index": 0, "delta": delta}]}
    last = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]}
    if whole["usage"]:
        yield {**last, "usage": whole["usage"]}
    yield {**last, "usage": {**_NO_TOKENS, "prompt_tokens_details": {"cached_tokens": 0}}}
    yield "[DONE]"
