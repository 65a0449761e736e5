"""Makes replies that no server should send: recorded ones broken in any way, and random ones of every grammar."""

import json
import random
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from llama_vision.providers import PROVIDERS
from tests.recorded_replies import recorded_replies
from tests.toolcalls.cases import CASES

DIALECTS = {name: PROVIDERS[name].dialect for name in ("openai-compatible", "cloudflare", "aimlapi")}

# JSON as it may be and as it should not be, each where a string, a number, an object or a list is expected.
ATOMS = [
    "null",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "7.5",
    "1e400",
    "-1e999",
    "NaN",
    "Infinity",
    '""',
    '"\\u0020"',
    '"a"',
    '"é"',
    '"🦙"',
    '"\\ud83d"',
    '"\\ude00"',
    '"\\ud83d\\ude00"',
    '"\\u0000"',
    '"x\\\\ud83d"',
    "[]",
    "{}",
    "[[]]",
    "[{}]",
    "[null]",
    '["a",{"text":"b"}]',
    '{"a":1}',
    '{"text":"a"}',
    '{"error":{}}',
    '"null"',
    '"None"',
    '"stop"',
    '"error"',
    '"abort"',
    '"length"',
    '"tool_calls"',
    '"[DONE]"',
    '"{}"',
    '"{\\"city\\":"',
    '"\\"Oslo\\"}"',
    '"{\\"city\\":\\"Oslo\\"}"',
    '"\\"{}\\""',
    '"\\\\u"',
    '"get_weather"',
    '"get_"',
    '"</s>"',
    '"<|eot_id|>"',
    '"<|start_header_id|>"',
    '"<|python_tag|>"',
    "5016",
    "429",
    '"429"',
    "99999999999999999999",
    '"call_a"',
]
BROKEN = (
    "[",
    "{",
    "]",
    "}",
    ":",
    ",",
    '"',
    '"\\',
    '"\\u"',
    '"\\x"',
    '"\ud83d"',
    '"\ude00"',
    "'a'",
    "nul",
    "01",
    "\x00",
)
DEEP = (
    *('["' * depth + '"]' * depth for depth in (150, 5000)),
    *("[" * depth + "]" * depth for depth in (100, 190, 400, 950, 5000)),
    *('{"a":' * depth + '"\\ud83d"' + "}" * depth for depth in (100, 190, 700, 940, 5000)),
    *('{"error":' * depth + "1" + "}" * depth for depth in (100, 400, 900)),
    "9" * 5000,
    f'"{"9" * 5000}"',
)
FIELDS = {
    "payload": (
        *("id", "model", "choices", "choices", "choices", "usage", "error", "errors", "detail", "success", "code"),
        *("message", "object", "statusCode", "response", "response", "tool_calls", "tool_calls", "result", "result"),
        *("requestId", "meta"),
    ),
    "choice": ("index", "delta", "delta", "delta", "message", "message", "finish_reason", "error"),
    "message": ("content", "content", "content", "refusal", "tool_calls", "tool_calls", "function_call", "role"),
    "call": ("index", "id", "function", "function", "name", "arguments"),
    "function": ("name", "arguments", "arguments"),
    "usage": ("prompt_tokens", "completion_tokens", "prompt_tokens_details", "cost", "neurons", "cached_tokens"),
    "error": ("message", "code", "type", "error", "errors", "detail", "msg", "loc", "metadata", "raw", "status"),
}  # fmt: skip
INNER = {
    "choices": "[choice",
    "delta": "message",
    "message": "message",
    "tool_calls": "[call",
    "function": "function",
    "function_call": "function",
    "usage": "usage",
    "prompt_tokens_details": "usage",
    "error": "error",
    "errors": "[error",
    "detail": "[error",
    "result": "payload",
    "metadata": "error",
    "meta": "payload",
}
USUAL = {
    "id": ('"a"', '"a"', '"b"', '"null"', "7", "null", '""'),
    "index": ("0", "0", "0", "1", "2", "null"),
    "name": ('"get_weather"', '"get_time"', '"get_"', '"weather"', "null", '""', '"\\ud83d"'),
    "arguments": ('"{"', '"}"', '"{}"', '"null"', '"\\"{}\\""', '"{\\"city\\": \\"Oslo\\"}"', "null", "{}", '{"a": 1}', '"\\\\ud83d"'),
    "finish_reason": ('"stop"', '"length"', '"tool_calls"', "null", "null", '"eos"', '"error"'),
    "role": ('"assistant"',),
    "content": ("null", '""', "true", '[{"text": "a"}]', '"\\ud83d"', '"\\ude00"'),
    "response": ("null", '""', "7", '{"a": 1}', "true"),
    "model": ('"llama"', '"\\ud83d"', "null"),
    "success": ("true", "true", "false", "null"),
    "prompt_tokens": ("1", "7.0", "null", "NaN"),
    "completion_tokens": ("7", "1e400", "null"),
    "cached_tokens": ("1", "null"),
    "cost": ("0.1", '"0.1"', "null"),
    "error": ("null", '"oh no"', "{}"),
    "code": ("429", "5016", "7", '"insufficient_quota"', '"context_length_exceeded"'),
    "statusCode": ("429", '"500"', "null"),
    "object": ('"error"', '"chat.completion"'),
    "message": ('"oh no"', '"maximum context length is 8192 tokens"', '"5007: no such model"', '"<title>a</title>"', '"\\ud83d"'),
}  # fmt: skip
WORDS = [
    *("Hello ", "wor", "ld", "é", "🦙", "\n", " ", "<", "</s>", "<|eot_id|>", "STOP", "ST", "OP", "{", "}", "```", "[DONE]"),
    *("<|python_tag|>", "<function=get_time>", "</function>", "data: ", '"', "\\", "\x00", "\u2028", "\ud83d", "\ude00"),
]  # fmt: skip
ENDINGS = ("\n", "\n", "\n", "\r\n", "\r")
EXTRA_EVENTS = (
    *(": keep-alive\n\n", "data:\n\n", "data: null\n\n", "event: ping\ndata: {}\n\n", "data: [DONE]\n\n", "\n", "id: 1\n"),
    *("event: error\n", "event: error\ndata: oh no\n\n", 'event: error\ndata: {"code": 429}\n\n', "data: [DONE] \n\n"),
    *("data: {\n\n", "data\n\n", "<html>", "\ufeff", 'data: {"choices": []}\n\n', 'data: {"error": "oh no"}\n\n'),
)  # fmt: skip
_VALUE = re.compile(rb'(?<=[:\[,])\s*(?:"(?:[^"\\]|\\.)*"|[\w.+-]+)')
_LINE_END = re.compile(rb"\n\n")
TOOL_TEXTS = [case.text for case in CASES if len(case.text) < 200]


@dataclass(frozen=True, slots=True)
class FuzzInput:
    """A reply, and how it was asked for.

    Attributes:
        dialect: Which of `DIALECTS` reads it.
        streamed: Whether a stream was asked for.
        body: Anything.
        tools: Which of `TOOLS` are looked for in the text; None for none.
        stops: Stop strings that are looked for here.
    """

    dialect: str
    streamed: bool
    body: bytes
    tools: str | None = None
    stops: tuple[str, ...] = ()


class InputGenerator:
    """Makes inputs from a seed: the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._makers = (
            self._recorded,
            self._recorded,
            self._events,
            self._events,
            self._events,
            self._whole,
            self._whole,
            self._tool_text,
            self._noise,
        )

    @property
    def state(self) -> object:
        """What makes the next input again."""
        return self._random.getstate()

    @state.setter
    def state(self, state: Any) -> None:
        self._random.setstate(state)

    def next(self) -> FuzzInput:
        """Make the next input."""
        chance = self._random
        body, streamed, dialect = chance.choice(self._makers)()
        while chance.random() < 0.15:
            body = self._break(body)
        if chance.random() < 0.02:
            body = b"\xef\xbb\xbf" + body
        has_tools = chance.random() < 0.3
        return FuzzInput(
            dialect,
            streamed,
            body,
            chance.choice(("usual", "code")) if has_tools else None,
            ("STOP", "</") if chance.random() < 0.1 else (),
        )

    def cuts(self, body: bytes) -> list[bytes]:
        """Cut a body into pieces: a few, or after every byte of a short one."""
        chance = self._random
        if len(body) < 60 and chance.random() < 0.2:
            places = list(range(1, len(body)))
        else:
            places = sorted(chance.randrange(len(body) + 1) for _ in range(chance.randrange(6)))
        return [body[start:end] for start, end in zip([0, *places], [*places, len(body)], strict=True)]

    def error_body(self) -> bytes:
        """Make the body of an error response."""
        chance = self._random
        text = self._object("error" if chance.random() < 0.5 else "payload")
        if chance.random() < 0.2:
            text = f"<html><TITLE>{text}</title>"
        return self._break(_encode(text)) if chance.random() < 0.3 else _encode(text)

    def _recorded(self) -> tuple[bytes, bool, str]:
        recorded = self._random.choice(_short_recorded())
        events = _LINE_END.split(recorded.body)
        if recorded.streamed and len(events) > 8:  # the beginning and the end have all there is
            events = events[:4] + events[-4:]
        if recorded.streamed and self._random.random() < 0.5:
            self._disturb(events)
        body = b"\n\n".join(events)
        dialect = recorded.provider if recorded.provider in DIALECTS else "openai-compatible"
        return self._mutate(body) if self._random.random() < 0.7 else body, recorded.streamed, dialect

    def _disturb(self, events: list[bytes]) -> None:
        """Drop, double or exchange events, or put others between."""
        chance = self._random
        first, second = chance.randrange(len(events)), chance.randrange(len(events))
        match chance.randrange(4):
            case 0:
                del events[first]
            case 1:
                events.insert(second, events[first])
            case 2:
                events[first], events[second] = events[second], events[first]
            case _:
                events.insert(first, _encode(chance.choice(EXTRA_EVENTS)))

    def _mutate(self, body: bytes) -> bytes:
        """Put another value where one is."""
        values = list(_VALUE.finditer(body))
        if not values:
            return body
        start, end = self._random.choice(values).span()
        return body[:start] + _encode(self._atom()) + body[end:]

    def _break(self, body: bytes) -> bytes:
        """Change bytes anywhere."""
        chance = self._random
        start = chance.randrange(len(body) + 1)
        end = min(len(body), start + chance.choice((0, 1, 1, 2, 10, 100)))
        match chance.randrange(4):
            case 0:
                return body[:start] + body[end:]
            case 1:
                return body[:end] + body[start:end] + body[end:]
            case 2:
                return body[:start] + chance.randbytes(chance.randrange(1, 4)) + body[end:]
            case _:
                return body[:start] + _encode(self._atom()) + body[end:]

    def _events(self) -> tuple[bytes, bool, str]:
        """Make an event stream of random payloads."""
        chance = self._random
        ending = chance.choice(ENDINGS)
        lines = []
        for _ in range(chance.randrange(1, 6)):
            if chance.random() < 0.15:
                lines.append(chance.choice(EXTRA_EVENTS).replace("\n", ending))
            lines.append(f"data: {self._object('payload')}{ending}{ending}")
        if chance.random() < 0.7:
            lines.append('data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}' + ending * 2)
        if chance.random() < 0.7:
            lines.append(f"data: [DONE]{ending}{ending}")
        return _encode("".join(lines)), chance.random() < 0.9, chance.choice(list(DIALECTS))

    def _whole(self) -> tuple[bytes, bool, str]:
        chance = self._random
        return _encode(self._object("payload")), chance.random() < 0.4, chance.choice(list(DIALECTS))

    def _tool_text(self) -> tuple[bytes, bool, str]:
        """Make a text with what may be tool calls, in pieces that are cut anywhere."""
        chance = self._random
        text = "".join(
            chance.choice(TOOL_TEXTS if chance.random() < 0.4 else WORDS)
            for _ in range(chance.randrange(1, 6))
        )
        places = sorted(chance.randrange(len(text) + 1) for _ in range(chance.randrange(5)))
        pieces = [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]
        ascii_only = chance.random() < 0.5 or "\ud83d" in text or "\ude00" in text
        payloads = [
            json.dumps({"choices": [{"delta": {"content": piece}}]}, ensure_ascii=ascii_only)
            for piece in pieces
        ]
        payloads.append('{"choices": [{"delta": {}, "finish_reason": "stop"}]}')
        return _encode("".join(f"data: {payload}\n\n" for payload in payloads)), True, "openai-compatible"

    def _noise(self) -> tuple[bytes, bool, str]:
        chance = self._random
        parts = [
            chance.randbytes(chance.randrange(4)) if chance.random() < 0.3 else _encode(self._atom() + " data:\n"[: chance.randrange(9)])
            for _ in range(chance.randrange(12))
        ]  # fmt: skip
        return b"".join(parts), chance.random() < 0.5, chance.choice(list(DIALECTS))

    def _object(self, kind: str, depth: int = 0) -> str:
        chance = self._random
        fields = [
            f'"{name}": {self._value(name, depth)}'
            for name in chance.choices(FIELDS[kind], k=chance.randrange(1, 5))
        ]
        return "{" + ", ".join(fields) + "}"

    def _value(self, name: str, depth: int) -> str:
        chance = self._random
        if (inner := INNER.get(name)) and depth < 6 and chance.random() < 0.85:
            if inner[0] == "[":
                objects = (
                    self._object(inner[1:], depth + 1) for _ in range(chance.choice((0, 1, 1, 1, 2, 3)))
                )
                return f"[{', '.join(objects)}]"
            return self._object(inner, depth + 1)
        if name in ("content", "response", "arguments", "refusal") and chance.random() < 0.6:
            text = "".join(chance.choices(WORDS, k=3))
            return json.dumps(
                text, ensure_ascii=chance.random() < 0.5 or "\ud83d" in text or "\ude00" in text
            )
        if chance.random() < 0.9 and (usual := USUAL.get(name)):
            return chance.choice(usual)
        return self._atom()

    def _atom(self) -> str:
        chance = self._random
        dice = chance.random()
        return chance.choice(DEEP if dice < 0.003 else BROKEN if dice < 0.03 else ATOMS)


@cache
def _short_recorded():
    return [recorded for recorded in recorded_replies() if recorded.streamed or len(recorded.body) < 2000]


def _encode(text: str) -> bytes:
    """Encode, with half a surrogate pair as the bytes that some libraries write."""
    return text.encode(errors="surrogatepass")
