"""How servers say that a request does not fit the model's context: each in its own text, and most with the numbers."""

import re

from llama_vision.core.errors import ContextTooLongError

_CODES = ('"context_length_exceeded"', '"exceed_context_size_error"')  # OpenAI and Groq; llama.cpp
"""The message may not say it. Quotes in a quoted text are escaped."""

# Seen in replies, in the order: OpenAI, OpenRouter and vLLM; vLLM's engine for text, and with images; SGLang and Together;
# llama.cpp; LM Studio (three); TGI, and Together before 2025 (two); DeepInfra, with a 500; Ollama (two); Groq.
_OVERFLOW = re.compile(
    r"maximum context length (?:is|of) \d|longer than the maximum model length|prompt \([^)]{1,40}\) is too long"
    r"|longer than the model's context length|exceeds the available context size|context size has been exceeded"
    r"|tokens when context the overflows|reached context length of|greater than the context length"
    r"|`inputs` tokens \+ `max_new_tokens` must be <=|`inputs` must have less than"
    r"|input length \d+ exceeds maximum input length|prompt too long; exceeded|input (?:length )?exceeds (?:the |maximum )?context length"
    r"|reduce the length of the messages",
    re.IGNORECASE,
)
_LIKELY_OVERFLOW = re.compile(
    r"maximum context length|context window|prompt is too long|too many tokens", re.IGNORECASE
)
"""Said of other things too, so it counts for a refused request only, not for a failure of the server."""

_LIMIT = re.compile(
    r"(?:context (?:length|size|window limit)|model length|maximum input length|must be <=|must have less than|n_ctx)"
    r"(?: is| of| only|[ :=(\"])*(\d{1,12})",
    re.IGNORECASE,
)
# The first that is found counts, the sum of its numbers.
_REQUESTED = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"a total of (?:at least )?(\d{1,12})",  # vLLM, SGLang
        r"is too large: (\d{1,12}).{0,200}?has (\d{1,12}) input tokens",  # vLLM: max_tokens, and the prompt
        r"Given: (\d{1,12})(?: `inputs` tokens and (\d{1,12}))?",  # TGI
        r"(?:you requested (?:about )?|messages resulted in |request has )(\d{1,12})",  # OpenAI, OpenRouter, vLLM
        r"(?:prompt \((?:total )?length |input \(|request \(|maximum output tokens \()(\d{1,12})",  # vLLM; SGLang; llama.cpp; Cloudflare
        r"(?:input length|keep the first|n_keep:|is too long:|\"n_prompt_tokens\":) ?(\d{1,12})",  # DeepInfra; LM Studio; Fireworks; llama.cpp
    )
)


def says_context_overflow(message: str, body: str, *, refused: bool) -> bool:
    """Return whether an error is about the length of the context.

    Args:
        message: The message of the error.
        body: The response body.
        refused: Whether the status is 4xx, where more texts are understood.
    """
    return bool(
        _OVERFLOW.search(message)
        or any(code in body for code in _CODES)
        or (refused and _LIKELY_OVERFLOW.search(message))
    )


def read_token_counts(error: ContextTooLongError, text: str) -> None:
    """Fill in the numbers that the text names."""
    if limit := _LIMIT.search(text):
        error.context_window = int(limit[1])
    if requested := next(filter(None, (pattern.search(text) for pattern in _REQUESTED)), None):
        error.requested_tokens = sum(int(number) for number in requested.groups() if number)
