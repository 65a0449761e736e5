"""What the tests of the decoders say payloads with."""

import json

from llama_vision.core.reply import Reply
from llama_vision.dialects.workers_ai.dialect import WorkersAiDialect
from llama_vision.providers import PROVIDERS

DONE = b"[DONE]"
CHAT_COMPLETIONS = PROVIDERS["openai-compatible"].dialect
"""Understands what any host may send."""


def encoded(payload):
    return payload if isinstance(payload, bytes) else json.dumps(payload, ensure_ascii=False).encode()


def events_of(*payloads, model="asked", headers=None, dialect=CHAT_COMPLETIONS):
    """Decode payloads (bytes, or what becomes JSON) to the end."""
    decoder = dialect.decoder(model, headers or {})
    events = [event for payload in payloads for event in decoder.feed(encoded(payload))]
    return events + decoder.close()


def reply_to(*payloads, **asked):
    return Reply.from_events(events_of(*payloads, **asked))


def whole(message, *, finish_reason="stop", **fields):
    """Make the body of a reply."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}
    return {"id": "chatcmpl-1", "model": "llama", "choices": [choice], **fields}


def chunk(delta=None, *, finish_reason=None, **fields):
    """Make one chunk of a stream."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish_reason}
    return {"id": "chatcmpl-1", "model": "llama", "choices": [choice], **fields}


def streamed_calls(*deltas, finish_reason="tool_calls"):
    """Make a stream whose chunks hold these lists of fragments, and give its tool calls."""
    chunks = [chunk({"tool_calls": fragments}) for fragments in deltas]
    return reply_to(*chunks, chunk(finish_reason=finish_reason), DONE).tool_calls


def fragment(arguments=None, *, call_id=None, name=None, **fields):
    """Make one fragment of a call; a field that is None is left out."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    call = {"id": call_id, "function": function or None, **fields}
    return {key: value for key, value in call.items() if value is not None}


def native_events_of(*payloads, max_tokens=None, headers=None):
    """Decode payloads of Cloudflare's native dialect to the end."""
    decoder = WorkersAiDialect().decoder("asked", headers or {}, max_tokens=max_tokens)
    events = [event for payload in payloads for event in decoder.feed(encoded(payload))]
    return events + decoder.close()


def native_reply_to(*payloads, **asked):
    return Reply.from_events(native_events_of(*payloads, **asked))


def enveloped(result, **fields):
    """Make the body of a native reply."""
    return {"result": result, "success": True, "errors": [], "messages": [], **fields}
