"""Servers on this machine that speak a provider's documented dialect, for tests that want real sockets.

    with Emulator() as emulator:
        emulator.script(emulator.refusal(429, "Model busy, retry later"), completion("Hi!"))
        ...                                    # talk to emulator.base_url with emulator.api_key
        emulator.requests[0].body              # what arrived, as parsed JSON

`Emulator(DIALECTS["cloudflare"])` is another provider; replies are scripted as chat completions in any case, and put into
the provider's dialect. Without a script it answers by itself: see `chat_model.py`.
"""

from tests.emulator.answers import (
    HANG_UP,
    NO_ANSWER,
    STALL,
    Answer,
    Wait,
    event_stream,
    json_answer,
    page,
    refusal,
    sse,
)
from tests.emulator.chat_completions import chunks, completion
from tests.emulator.cloudflare import ACCOUNT_ID
from tests.emulator.dialects import DIALECTS
from tests.emulator.received import Received
from tests.emulator.server import Emulator

__all__ = [
    "ACCOUNT_ID",
    "DIALECTS",
    "HANG_UP",
    "NO_ANSWER",
    "STALL",
    "Answer",
    "Emulator",
    "Received",
    "Wait",
    "chunks",
    "completion",
    "event_stream",
    "json_answer",
    "page",
    "refusal",
    "sse",
]
