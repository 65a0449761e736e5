"""What all emulators have in common: one script is said by each of them in its own words."""

import json

import httpx
import pytest

from tests.emulator import ACCOUNT_ID, DIALECTS, STALL, completion, event_stream
from tests.emulator.posting import events, post

HELLO = {"messages": [{"role": "user", "content": "Hello!"}]}
LLAMA = "meta-llama/Llama-3.2-11B-Vision-Instruct"
CLOUDFLARE = "@cf/meta/llama-3.2-11b-vision-instruct"
CALLS = {
    "deepinfra": ("/chat/completions", {**HELLO, "model": LLAMA}),
    "openai-compatible": ("/chat/completions", {**HELLO, "model": LLAMA}),
    "aimlapi": ("/chat/completions", {**HELLO, "model": f"{LLAMA}-Turbo"}),
    "aigateway": ("/chat/completions", {**HELLO, "model": "meta/llama-3.2-11b-vision-instruct"}),
    "cloudflare": (f"/accounts/{ACCOUNT_ID}/ai/run/{CLOUDFLARE}", HELLO),
    "cloudflare-openai": (f"/accounts/{ACCOUNT_ID}/ai/v1/chat/completions", {**HELLO, "model": CLOUDFLARE}),
}


@pytest.fixture(params=DIALECTS)
def name(request):
    return request.param


def said(payload):
    """Read the text and the arguments of calls out of anything that one of them sends."""
    if isinstance(payload, list):
        texts, arguments = zip(*(said(event) for event in payload), strict=True)
        return "".join(texts), "".join(arguments)
    message = payload.get("result") or payload
    if message.get("choices"):
        choice = message["choices"][0]
        message = choice.get("message") or choice["delta"]
    calls = [call.get("function", call).get("arguments", "") for call in message.get("tool_calls") or ()]
    texts = [call if isinstance(call, str) else json.dumps(call) for call in calls]
    return message.get("content") or message.get("response") or "", "".join(texts)


@pytest.mark.parametrize("streamed", [False, True])
def test_one_script_fits_them_all(emulator_of, name, streamed):
    emulator, (path, body) = emulator_of(name), CALLS[name]
    emulator.script(completion("Grüße, 世界!"), completion(calls=[("look", {"at": "me"})]))
    body = {**body, "stream": True} if streamed else body
    first, second = (post(emulator, path, body) for _ in range(2))
    first, second = (events(reply) if streamed else reply.json() for reply in (first, second))
    assert said(first) == ("Grüße, 世界!", "")
    assert said(second) == ("", '{"at": "me"}')


def test_a_refused_request_uses_up_no_script_and_is_recorded(emulator_of, name):
    emulator, (path, body) = emulator_of(name), CALLS[name]
    emulator.script(completion("scripted"))
    assert post(emulator, path, {**body, "temperature": 9}).status_code >= 400
    assert emulator.unplayed == 1
    assert said(post(emulator, path, body).json())[0] == "scripted"
    assert [received.body.get("temperature") for received in emulator.requests] == [9, None]


def test_no_key_is_asked_for_where_there_is_none(emulator_of, name):
    emulator, (path, body) = emulator_of(name), CALLS[name]
    assert post(emulator, path, body, authorization="Bearer wrong").status_code == 401
    emulator.api_key = None
    assert post(emulator, path, body, authorization="Bearer wrong").is_success


def test_a_failure_looks_as_the_provider_writes_it_and_tells_when_to_come_back(emulator_of, name):
    emulator, (path, body) = emulator_of(name), CALLS[name]
    emulator.script(emulator.refusal(429, "Slow down", retry_after=3))
    response = post(emulator, path, body)
    assert (response.status_code, response.headers["retry-after"]) == (429, "3")
    assert "Slow down" in response.text


def test_the_model_counts_as_far_as_it_is_let(emulator_of, name):
    emulator, (path, body) = emulator_of(name), CALLS[name]
    body = {**body, "messages": [{"role": "user", "content": "Count to 9"}], "max_tokens": 4}
    assert said(post(emulator, path, body).json())[0] == "1 2 3 4"


def test_what_went_astray_is_answered_in_json(emulator_of, name):
    emulator, (path, body) = emulator_of(name), CALLS[name]
    assert post(emulator, "/nowhere", body).status_code == 404
    assert httpx.get(emulator.base_url + path).json()


def test_a_reset_ends_answers_that_are_on_their_way(emulator_of, name):
    emulator, (path, body) = emulator_of(name), CALLS[name]
    emulator.script(event_stream(STALL))
    headers = {"authorization": f"Bearer {emulator.api_key}"}
    with httpx.stream("POST", emulator.base_url + path, json=body, headers=headers) as response:
        emulator.reset()
        with pytest.raises(httpx.TransportError):
            response.read()
