"""What a chat completion looks like on the wire: permissive mirrors of the providers' JSON, read in one pass.

Unknown fields are ignored and every field may be missing or null, because each is at some provider. Chunks of a stream
and whole bodies share one type: a choice has a `delta` or a `message`.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Wire(BaseModel):
    """Numbers where words are expected are taken as words."""

    model_config = ConfigDict(coerce_numbers_to_str=True)


class WireFunction(_Wire):
    """The function of a tool call; `arguments` is a string, or at some providers the object itself."""

    name: str | None = None
    arguments: Any = None


class WireToolCall(_Wire):
    """A tool call, or a fragment of one."""

    index: int | None = None
    id: str | None = None
    function: WireFunction | None = None


class WireMessage(_Wire):
    """A message, or what a chunk adds to it."""

    content: str | list[Any] | None = None
    refusal: str | None = None
    tool_calls: list[WireToolCall] | None = None


class WireChoice(_Wire):
    """One of the answers."""

    index: int | None = None
    delta: WireMessage | None = None
    message: WireMessage | None = None
    finish_reason: str | None = None


class WirePromptDetails(_Wire):
    """What the prompt's tokens consist of."""

    cached_tokens: float | None = None


class WireUsage(_Wire):
    """Token counts, as floats at some providers, and the cost: DeepInfra's, AIGateway's, Cloudflare's in neurons."""

    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    prompt_tokens_details: WirePromptDetails | None = None
    estimated_cost: float | None = None
    cost: float | None = None
    neurons: float | None = None


class WireAimlUsage(_Wire):
    """AI/ML API's word for the cost, in US dollars."""

    usd_spent: float | None = None


class WireMeta(_Wire):
    """AI/ML API's report, in a whole body or in a chunk of its own."""

    usage: WireAimlUsage | None = None


class WireGroq(_Wire):
    """Where Groq puts the usage of a stream."""

    usage: WireUsage | None = None


class WireCompletion(_Wire):
    """A whole body, or one chunk of a stream."""

    id: str | None = None
    model: str | None = None
    choices: list[WireChoice] | None = None
    usage: WireUsage | None = None
    error: Any = None
    meta: WireMeta | None = None
    x_groq: WireGroq | None = None
