"""A host that does not know `stream_options` is asked without, from then on."""

from dataclasses import replace

import pytest

from llama_vision import find_provider
from llama_vision.backends.http import call
from llama_vision.core.errors import InvalidRequestError
from llama_vision.dialects.chat_completions.dialect import ChatCompletionsDialect
from tests.emulator import Emulator, completion, refusal
from tests.emulator.asking import STREAMED_WAYS, ask, backend_for, question

REFUSED = refusal(400, {"error": {"message": "Unrecognized request argument supplied: stream_options"}})


@pytest.fixture(params=STREAMED_WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def nothing_is_known_of_any_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "_urls_without_stream_options", set())


def asked_for_usage(emulator: Emulator) -> list[bool]:
    return ["stream_options" in received.body for received in emulator.requests]


def test_a_host_that_refuses_stream_options_is_asked_without_them(emulator: Emulator, way: str):
    emulator.script(REFUSED, completion("at last"))
    assert ask(backend_for(emulator, max_retries=0), way).text == "at last"
    first, second = (received.body for received in emulator.requests)
    assert first.pop("stream_options") == {"include_usage": True}
    assert first == second


@pytest.mark.parametrize("status", [400, 422])
def test_it_is_remembered_for_all_who_ask_there(emulator: Emulator, way: str, status: int):
    emulator.script(refusal(status, {"detail": [{"loc": ["body", "stream_options"], "msg": "extra"}]}))
    ask(backend_for(emulator), way)
    ask(backend_for(emulator), way)
    ask(backend_for(emulator, "openai-compatible"), "complete")
    ask(backend_for(emulator, "openai-compatible"), way)
    assert asked_for_usage(emulator) == [True, False, False, False, False]


def test_it_is_remembered_for_no_other_address(emulator: Emulator, other_emulator: Emulator, way: str):
    emulator.script(REFUSED)
    ask(backend_for(emulator), way)
    assert ask(backend_for(other_emulator), way).usage.input_tokens
    assert asked_for_usage(other_emulator) == [True]


def test_another_refusal_is_none_of_stream_options(emulator: Emulator, way: str):
    emulator.script(refusal(400))
    with pytest.raises(InvalidRequestError):
        ask(backend_for(emulator), way)
    ask(backend_for(emulator), way)
    assert asked_for_usage(emulator) == [True, True]


def test_a_host_that_refuses_in_any_case_is_asked_twice(emulator: Emulator, way: str):
    emulator.script(REFUSED, REFUSED)
    with pytest.raises(InvalidRequestError, match="stream_options"):
        ask(backend_for(emulator, max_retries=5), way)
    assert asked_for_usage(emulator) == [True, False]


@pytest.mark.parametrize("known", [True, False])
def test_stream_options_of_the_users_own_do_not_make_it_ask_for_ever(
    emulator: Emulator, way: str, known: bool
):
    provider = replace(find_provider("deepinfra"), dialect=ChatCompletionsDialect(stream_options=known))
    emulator.always(REFUSED)
    own = question(extra_body={"stream_options": {"include_usage": False}})
    with pytest.raises(InvalidRequestError, match="stream_options"):
        ask(backend_for(emulator, provider), way, own)
    assert len(emulator.requests) == 2


def test_who_wants_no_usage_never_asks_for_it(emulator: Emulator, way: str):
    emulator.script(REFUSED)
    with pytest.raises(InvalidRequestError):
        ask(backend_for(emulator), way, question(stream_usage=False))
    assert asked_for_usage(emulator) == [False]


@pytest.mark.parametrize("whole", ["complete", "acomplete"])
def test_a_whole_reply_is_no_matter_of_stream_options(emulator: Emulator, whole: str):
    emulator.script(REFUSED)
    with pytest.raises(InvalidRequestError):
        ask(backend_for(emulator), whole)
    assert len(emulator.requests) == 1
