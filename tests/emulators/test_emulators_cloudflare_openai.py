"""Cloudflare's emulator, the route of chat completions: streams as they were recorded, errors in the envelope."""

import pytest

from tests.emulator import ACCOUNT_ID, completion
from tests.emulator.posting import data_url, events, image, image_part, post

PATH = f"/accounts/{ACCOUNT_ID}/ai/v1/chat/completions"
HELLO = {"role": "user", "content": "Hello!"}
BODY = {"model": "@cf/meta/llama-3.2-11b-vision-instruct", "messages": [HELLO]}


@pytest.fixture
def emulator(emulator_of):
    return emulator_of("cloudflare-openai")


def test_a_reply_is_a_chat_completion_without_an_envelope(emulator):
    body = post(emulator, PATH, BODY).json()
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello! How can I help you today?"}}
    assert body["choices"] == [{**choice, "finish_reason": "stop"}]
    assert body["usage"] == {"prompt_tokens": 1, "completion_tokens": 7, "total_tokens": 8}


def test_a_stream_ends_twice_and_the_second_time_with_nothing_counted(emulator):
    *words, first, second = events(post(emulator, PATH, {**BODY, "stream": True}))
    assert all(chunk["choices"][0].keys() == {"index", "delta"} for chunk in words)
    assert all(chunk["choices"][0]["delta"].keys() == {"content"} for chunk in words)
    assert [chunk["choices"][0]["finish_reason"] for chunk in (first, second)] == ["stop", "stop"]
    assert [chunk["usage"]["total_tokens"] for chunk in (first, second)] == [8, 0]


def test_a_streamed_call_keeps_its_id(emulator):
    emulator.script(completion(calls=[("look", {"at": "me"})]))
    first, *_ = events(post(emulator, PATH, {**BODY, "stream": True}))
    assert first["choices"][0]["delta"]["tool_calls"][0]["id"] == "call_00000000"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_image_in_a_message_is_answered_with_nothing(emulator, streamed):
    messages = [{"role": "user", "content": [image_part(data_url(image())), {"type": "text", "text": "?"}]}]
    response = post(emulator, PATH, {**BODY, "messages": messages, "stream": streamed})
    if streamed:
        assert all(chunk["choices"][0]["delta"] == {} for chunk in events(response))
    else:
        assert response.json()["choices"][0]["message"]["content"] is None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"model": "gpt-4"}, 5007),
        ({"messages": []}, 5006),
        ({"temperature": 6}, 5006),
        ({"seed": 0}, 5006),
        ({"response_format": {"type": "json_object"}}, 5024),
    ],
)
def test_errors_come_in_the_envelope(emulator, change, code):
    response = post(emulator, PATH, {**BODY, **change})
    assert response.status_code == 400
    assert response.json()["success"] is False
    assert response.json()["errors"][0]["code"] == code


def test_a_text_ends_at_a_stop_and_after_the_most_tokens(emulator):
    choice = post(emulator, PATH, {**BODY, "stop": ["you"]}).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hello! How can I help ", "stop")
    counting = {**BODY, "messages": [{"role": "user", "content": "Count to 300."}]}
    cut = post(emulator, PATH, counting).json()
    assert (cut["usage"]["completion_tokens"], cut["choices"][0]["finish_reason"]) == (256, "length")
