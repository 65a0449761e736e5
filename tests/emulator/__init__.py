"""Servers on this machine that speak a provider's documented dialect, for tests that want real sockets.

    with Emulator() as emulator:
        emulator.script(refusal(429, {"error": {"message": "Model busy, retry later"}}), completion("Hi!"))
        ...                                    # talk to emulator.base_url with emulator.api_key
        emulator.requests[0].body              # what arrived, as parsed JSON

Without a script it answers by itself: see `chat_model.py`.
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
from tests.emulator.received import Received
from tests.emulator.server import Emulator

__all__ = [
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
