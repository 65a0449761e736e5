"""Reads what a cassette says by the simplest means there are, for the tests to compare with what we deliver."""

import json
import re
from typing import Any

# US dollars per million tokens, from the pages of those who tell no cost: what we deliver is then an estimate.
PRICES = dict.fromkeys(("aigateway", "cloudflare", "cloudflare-openai"), (0.049, 0.68))
PRICED = "llama-3.2-11b-vision"  # the recorded reply of cloudflare-openai is another model's
USD_PER_NEURON = 0.011 / 1000  # Cloudflare's price list


def said(provider: str, response: dict[str, Any]) -> dict[str, Any]:
    """Read the words, the tool calls, the token counts and the cost of a recorded answer."""
    body = response["body"]["string"].decode()
    streamed = body.startswith("data:")
    payloads = [
        json.loads(payload)
        for payload in (re.findall(r"^data: (\{.*)", body, re.MULTILINE) if streamed else [body])
    ]
    payloads = [payload.get("result") or payload for payload in payloads]  # Cloudflare's envelope
    messages = [
        choice.get("delta") or choice.get("message") or {}
        for payload in payloads
        for choice in payload.get("choices", ())
    ]
    usages = [payload["usage"] for payload in payloads if payload.get("usage")]
    words = [payload.get("response") for payload in payloads] + [
        message.get("content") for message in messages
    ]
    logprobs = [
        entry
        for payload in payloads
        for choice in payload.get("choices", ())
        for entry in (choice.get("logprobs") or {}).get("content", ())
    ]
    answer = {
        # DeepInfra's page prints the end mark of an older model in its stream.
        "text": "".join(filter(None, words)).removesuffix("</s>"),
        "reasoning": "".join(message.get("reasoning_content") or "" for message in messages),
        "tier": next((payload["service_tier"] for payload in payloads if "service_tier" in payload), None),
        "logprobs": logprobs,
        "image_tokens": None,
        "calls": _calls(messages + payloads),
        "usage": None,
        "cost": None,
        "cost_is_estimate": None,
    }
    if usages:
        # Of several reports the largest counts: Cloudflare ends with one of zeros.
        tokens_in, tokens_out = (
            max(usage[f"{kind}_tokens"] for usage in usages) for kind in ("prompt", "completion")
        )
        answer["usage"] = (tokens_in, tokens_out)
        answer["image_tokens"] = usages[-1].get("prompt_tokens_details", {}).get("image_tokens")
        told = [usage[name] for usage in usages for name in ("estimated_cost", "cost") if name in usage]
        told += [payload["meta"]["usage"]["usd_spent"] for payload in payloads if "meta" in payload]
        neurons = max(usage.get("neurons", 0) for usage in usages)
        if told:
            answer |= {"cost": told[-1], "cost_is_estimate": False}
        elif neurons:
            answer |= {"cost": neurons * USD_PER_NEURON, "cost_is_estimate": True}
        elif provider in PRICES and all(PRICED in payload.get("model", PRICED) for payload in payloads):
            price_in, price_out = PRICES[provider]
            cost = (tokens_in * price_in + tokens_out * price_out) / 1_000_000
            answer |= {"cost": cost, "cost_is_estimate": True}
    return answer


def batched(response: dict[str, Any]) -> dict[str, Any]:
    """Read the response of a batch's only request."""
    row = json.loads(response["body"]["string"])
    return {"body": {"string": json.dumps(row["response"]["body"]).encode()}}


def _calls(messages: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    calls = [call for message in messages for call in message.get("tool_calls") or ()]
    functions = [call.get("function") or call for call in calls]  # Cloudflare's native ones are not nested
    names = [function["name"] for function in functions if function.get("name")]
    arguments = [function["arguments"] for function in functions]
    if names and isinstance(arguments[0], str):  # one, of which name and arguments may come in pieces
        return [("".join(names), json.loads("".join(arguments)))]
    return list(zip(names, arguments, strict=True))


def complaint(response: dict[str, Any]) -> str:
    """Read the words of a recorded error."""
    return json.loads(response["body"]["string"])["error"]["message"]
