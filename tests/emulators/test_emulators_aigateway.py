"""AIGateway's emulator: streams, costs and errors as its pages show them."""

import pytest

from tests.emulator import completion
from tests.emulator.posting import data_url, events, image, image_part, post

PATH = "/chat/completions"
HELLO = {"role": "user", "content": "Hello!"}
BODY = {"model": "meta/llama-3.2-11b-vision-instruct", "messages": [HELLO]}
LOOK = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {}}}},
}


@pytest.fixture
def emulator(emulator_of):
    return emulator_of("aigateway")


def test_a_reply_tells_its_cost_its_limits_and_the_id_it_was_sent(emulator):
    response = post(emulator, PATH, BODY, x_request_id="mine-1")
    body = response.json()
    assert body["model"] == BODY["model"]
    assert body["usage"]["cost"] * 100 == pytest.approx(float(response.headers["x-cost-cents"]))
    assert "estimated_cost" not in body["usage"]
    assert response.headers["x-request-id"] == "mine-1"
    assert response.headers["x-ratelimit-limit-requests"] == "600"
    assert response.headers["x-ratelimit-remaining-requests"] == "599"
    assert response.headers["x-ratelimit-reset-requests"] == "60s"


def test_a_stream_begins_with_the_role_and_ends_with_usage_alone(emulator):
    response = post(emulator, PATH, {**BODY, "stream": True})
    first, *words, usage = events(response)
    assert first == {"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]}
    assert all(chunk.keys() == {"choices"} for chunk in words)
    # The reason comes with the last words.
    assert words[-1]["choices"][0] == {"index": 0, "delta": {"content": " today?"}, "finish_reason": "stop"}
    assert usage.keys() == {"usage"}
    assert usage["usage"]["cost"] > 0
    assert ": keep-alive\n\n" in response.text
    assert "x-cost-cents" not in response.headers


def test_a_streamed_call_comes_in_pieces_and_ends_by_itself(emulator):
    asked = {"messages": [{"role": "user", "content": "Look at 'me'."}], "tools": [LOOK], "stream": True}
    _, *chunks, last, _ = events(post(emulator, PATH, {**BODY, **asked}))
    calls = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in chunks]
    assert "".join(call["function"]["arguments"] for call in calls) == '{"at": "me"}'
    assert last["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "tool_calls"}


@pytest.mark.parametrize("model", [None, "auto"])
def test_where_no_model_is_named_another_one_answers(emulator, model):
    body = {"messages": [HELLO]} if model is None else {**BODY, "model": model}
    response = post(emulator, PATH, body)
    assert response.json()["model"] == "moonshot/kimi-k2.6"
    assert response.headers["x-auto-routed"] == "true"


@pytest.mark.parametrize(
    ("change", "headers", "status", "kind"),
    [
        ({}, {"authorization": "Bearer wrong"}, 401, "authentication_error"),
        ({"model": "gpt-4"}, {}, 404, "not_found"),
        ({"max_tokens": 4097}, {}, 400, "invalid_request_error"),
        ({"temperature": 3}, {}, 400, "invalid_request_error"),
        ({"messages": []}, {}, 400, "invalid_request_error"),
        ({"messages": [{"role": "user", "content": [image_part("no")]}]}, {}, 400, "invalid_request_error"),
    ],
)
def test_errors_have_a_type_and_the_status_as_a_number(emulator, change, headers, status, kind):
    response = post(emulator, PATH, {**BODY, **change}, x_request_id="mine-2", **headers)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"]) == (status, status, kind)
    assert error.keys() == {"message", "type", "code", "param"}
    assert response.headers["x-request-id"] == "mine-2"


def test_too_many_requests_are_told_when_to_come_back(emulator):
    emulator.dialect.requests_per_minute = 2
    statuses = [post(emulator, PATH, BODY).status_code for _ in range(2)]
    refused = post(emulator, PATH, BODY)
    assert (statuses, refused.status_code) == ([200, 200], 429)
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    emulator.reset()
    assert post(emulator, PATH, BODY).status_code == 200


def test_256_tokens_are_the_most_unless_the_request_says_otherwise(emulator):
    counting = {**BODY, "messages": [{"role": "user", "content": "Count to 300."}]}
    assert post(emulator, PATH, counting).json()["usage"]["completion_tokens"] == 256
    assert post(emulator, PATH, {**counting, "max_tokens": 4096}).json()["usage"]["completion_tokens"] == 300


def test_it_sees_images(emulator):
    messages = [{"role": "user", "content": [image_part(data_url(image()))] * 2}]
    message = post(emulator, PATH, {**BODY, "messages": messages}).json()["choices"][0]["message"]
    assert message["content"] == "I see 2 image(s)."


def test_errors_and_replies_can_be_scripted_in_its_manner(emulator):
    emulator.script(emulator.refusal(402), emulator.refusal(503, retry_after=2), completion("Hi!"))
    assert post(emulator, PATH, BODY).json()["error"]["type"] == "insufficient_credits"
    assert post(emulator, PATH, BODY).headers["retry-after"] == "2"
    assert [event for event in events(post(emulator, PATH, {**BODY, "stream": True})) if "usage" in event]
