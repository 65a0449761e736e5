"""The GenAI conventions as far as chat calls go, written down from https://github.com/open-telemetry/semantic-conventions-genai
(docs/gen-ai/client-inference.md, gen-ai-token-metrics.md and model/gen-ai/*.json, read on 2026-11-28).
"""

from typing import Any

ATTRIBUTES: dict[str, type | tuple[type, ...]] = {
    "gen_ai.operation.name": str,
    "gen_ai.provider.name": str,
    "gen_ai.request.model": str,
    "server.address": str,
    "server.port": int,
    "error.type": str,
    "gen_ai.output.type": str,
    "gen_ai.request.seed": int,
    "gen_ai.request.stream": bool,
    "gen_ai.request.top_k": int,
    "gen_ai.request.frequency_penalty": (float, int),
    "gen_ai.request.presence_penalty": (float, int),
    "gen_ai.request.max_tokens": int,
    "gen_ai.request.stop_sequences": tuple,
    "gen_ai.request.temperature": (float, int),
    "gen_ai.request.top_p": (float, int),
    "gen_ai.response.finish_reasons": tuple,
    "gen_ai.response.id": str,
    "gen_ai.response.model": str,
    "gen_ai.response.time_to_first_chunk": float,
    "gen_ai.usage.cache_read.input_tokens": int,
    "gen_ai.usage.image.input_tokens": int,
    "gen_ai.usage.input_tokens": int,
    "gen_ai.usage.output_tokens": int,
    "gen_ai.usage.reasoning.output_tokens": int,
    "gen_ai.input.messages": str,
    "gen_ai.output.messages": str,
    "gen_ai.system_instructions": str,
    "gen_ai.tool.definitions": str,
}
"""Types of a span's attributes; the last four may be JSON on spans."""

OWN_ATTRIBUTES = {"llama_vision.cost_usd": float, "llama_vision.tried": tuple}
REQUIRED = frozenset({"gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model"})
OUTPUT_TYPES = frozenset({"text", "json", "image", "speech"})

_COMMON = REQUIRED | {"server.address", "server.port", "gen_ai.response.model"}
METRICS = {
    "gen_ai.client.inference.duration": ("s", _COMMON | {"error.type"}),
    "gen_ai.client.inference.time_to_first_chunk": ("s", _COMMON),
    "gen_ai.client.inference.time_per_output_chunk": ("s", _COMMON),
    "gen_ai.client.inference.operation.input_tokens": ("{token}", _COMMON),
    "gen_ai.client.inference.operation.output_tokens": ("{token}", _COMMON),
    "gen_ai.client.inference.usage.input_tokens": ("{token}", _COMMON | {"gen_ai.token.modality"}),
    "gen_ai.client.inference.usage.output_tokens": ("{token}", _COMMON | {"gen_ai.token.modality"}),
    "gen_ai.client.inference.usage.cache_read.input_tokens": ("{token}", _COMMON | {"gen_ai.token.modality"}),
    "gen_ai.client.inference.usage.reasoning.output_tokens": ("{token}", _COMMON | {"gen_ai.token.modality"}),
}
"""Units, and the attributes that a point may have."""


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


_TEXT = {"type": "string"}
_PARTS: dict[str, dict[str, Any]] = {
    "text": _object({"content": _TEXT}),
    "reasoning": _object({"content": _TEXT}),
    "tool_call": _object({"name": _TEXT}, id=_TEXT, arguments={}),
    "tool_call_response": _object({"response": {}}, id=_TEXT),
    "server_tool_call": _object({"name": _TEXT, "server_tool_call": _object({"type": _TEXT})}, id=_TEXT),
    "server_tool_call_response": _object({"server_tool_call_response": _object({"type": _TEXT})}, id=_TEXT),
    "blob": _object({"modality": _TEXT, "content": _TEXT}, mime_type=_TEXT),
    "file": _object({"modality": _TEXT, "file_id": _TEXT}, mime_type=_TEXT),
    "uri": _object({"modality": _TEXT, "uri": _TEXT}, mime_type=_TEXT),
    "compaction": _object({}, id=_TEXT, content=_TEXT),
}
_PART = {
    # A part of another kind may have any fields, one of a known kind has to have its own.
    **_object({"type": _TEXT}),
    "allOf": [
        {"if": {"properties": {"type": {"const": kind}}}, "then": fields} for kind, fields in _PARTS.items()
    ],
}
_MESSAGE = _object({"role": _TEXT, "parts": {"type": "array", "items": _PART}}, name=_TEXT)
_TOOL = _object(
    {"type": _TEXT, "name": _TEXT},
    description={"type": ["string", "null"]},
    parameters={"type": ["object", "null"]},
)

SCHEMAS = {
    "gen_ai.input.messages": {"type": "array", "items": _MESSAGE},
    "gen_ai.output.messages": {
        "type": "array",
        "items": {
            **_MESSAGE,
            "properties": {**_MESSAGE["properties"], "finish_reason": {"type": ["string", "null"]}},
        },
    },
    "gen_ai.system_instructions": {"type": "array", "items": _PART},
    "gen_ai.tool.definitions": {"type": "array", "items": _TOOL},
}
"""JSON schemas of the attributes with content."""
