"""Cookies of one answer never go out with another call: accounts share the pools."""

import httpx

from llama_vision.backends import create_backend
from llama_vision.providers import find_provider
from tests.emulator import Emulator, completion, json_answer
from tests.emulator.asking import WAYS, ask, backend_for, question

SET_COOKIE = {"set-cookie": "session=of-the-first-account; Path=/"}


def test_a_cookie_is_not_sent_back(emulator: Emulator):
    backend = backend_for(emulator)
    for way in WAYS:
        emulator.script(json_answer(completion("Hi"), headers=SET_COOKIE))
        assert ask(backend, way).text == "Hi"
    assert ask(backend_for(emulator, provider="openai-compatible"), "complete").text
    assert all("cookie" not in request.headers for request in emulator.requests)


def test_a_client_of_the_users_own_keeps_its_cookies(emulator: Emulator):
    emulator.script(json_answer(completion("Hi"), headers=SET_COOKIE))
    with httpx.Client() as client:
        backend = create_backend(
            find_provider("deepinfra"),
            base_url=emulator.base_url,
            api_key=emulator.api_key,
            http_client=client,
        )
        backend.complete(question())
        backend.complete(question())
    assert emulator.requests[1].headers["cookie"] == "session=of-the-first-account"
