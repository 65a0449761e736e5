"""The contract that holds at every hosted provider, asked through `provider="llama-vision"` and our server on a real socket.

Behind the server stands the emulated provider in place of the model, which can't be told what to answer.
"""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from llama_vision import Message, Text, find_provider
from llama_vision.backends import create_backend
from tests.contract.adapters import ADAPTERS
from tests.contract.conftest import adapter, style  # noqa: F401 - fixtures
from tests.contract.subject import Subject
from tests.contract.test_contract import *  # noqa: F403 - its tests
from tests.contract.test_text_calls import *  # noqa: F403 - its tests
from tests.contract.test_tool_arguments import *  # noqa: F403 - its tests
from tests.contract.test_tool_choice import *  # noqa: F403 - its tests
from tests.serve.conftest import running

pytestmark = pytest.mark.slow
LEFT_OUT = {
    "test_text": "it wants a whole reply asked for as a whole, and the server streams from its model, so that it can stop it",
    "test_a_bad_key": "the key that is wrong is the client's: tests/serve/test_serve_access.py",
    "test_the_cost_is_told_or_estimated_and_said_to_be": "the local model costs nothing",
    "test_a_cut_answer_is_an_error_and_not_a_short_answer": "the model breaks off for the server, not the connection",
    "test_a_stream_that_breaks_in_a_call_gives_up_what_was_held": "as above",
    "test_where_no_call_is_looked_for_words_are_words": "the client can't say so to the server",
    "test_the_frameworks_own_ways_of_choosing_say_the_same": "it asks the emulator past the server",
}
"""Tests of the contract, each with what in it can't be so here."""
for name in LEFT_OUT:
    del globals()[name]

MODEL = "meta-llama/Llama-3.2-11B-Vision-Instruct"
_SERVER = find_provider("llama-vision")
RECORD = replace(_SERVER, models=(replace(_SERVER.models[0], id=MODEL), *_SERVER.models[1:]))


@dataclass
class ServedSubject(Subject):
    """The emulated provider, behind our server."""

    server: Any

    def ask(self, *messages, **options):
        asked = [Message("user", (Text(each),)) if isinstance(each, str) else each for each in messages]
        return self.adapter.ask(self.server, RECORD.name, self.style, asked, **{"model": MODEL, **options})


@dataclass
class Address:
    """Where the server is, as the adapters take it from an emulator."""

    base_url: str
    api_key: str = "key-of-the-server"


@pytest.fixture
def subject(adapter, style, emulator_of):  # noqa: F811 - in place of the contract's
    emulator = emulator_of("openai-compatible")
    behind = create_backend(
        find_provider("openai-compatible"),
        base_url=emulator.base_url,
        api_key=emulator.api_key,
        max_retries=0,
    )
    with running(backend=behind, model=MODEL) as server:
        yield ServedSubject(emulator, RECORD, ADAPTERS[adapter], style, Address(f"{server.url}/v1"))
