"""AI/ML API's emulator: as strict as the schemas of the two models."""

import pytest

from tests.emulator import completion
from tests.emulator.posting import data_url, events, image, image_part, post

PATH = "/chat/completions"
SMALL = "meta-llama/Llama-3.2-11B-Vision-Instruct-Turbo"
LARGE = "meta-llama/Llama-3.2-90B-Vision-Instruct-Turbo"
HELLO = {"role": "user", "content": "Hello!"}
BODY = {"model": SMALL, "messages": [HELLO]}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {}}}
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


@pytest.fixture
def emulator(emulator_of):
    return emulator_of("aimlapi")


def user(*parts):
    return {"messages": [{"role": "user", "content": list(parts)}]}


def test_success_is_201_with_the_cost_in_headers_and_body(emulator):
    response = post(emulator, PATH, BODY, x_client_request_id="order-8f21c4")
    body = response.json()
    assert response.status_code == 201
    assert body["choices"][0]["message"] == {
        "role": "assistant",
        "content": "Hello! How can I help you today?",
        "tool_calls": [],
    }
    assert body["meta"]["usage"]["usd_spent"] == pytest.approx(float(response.headers["x-aimlapi-usd-spent"]))
    assert body["meta"]["usage"]["credits_used"] == int(response.headers["x-aimlapi-credits-used"])
    assert "estimated_cost" not in body["usage"]
    assert response.headers["x-inference-id"]
    assert response.headers["x-client-request-id"] == "order-8f21c4"


def test_an_id_with_a_wrong_letter_is_dropped_without_a_word(emulator):
    assert "x-client-request-id" not in post(emulator, PATH, BODY, x_client_request_id="a b").headers


def test_a_stream_ends_with_its_cost_in_a_chunk_without_choices(emulator):
    response = post(emulator, PATH, {**BODY, "stream": True})
    *chunks, finish, meta = events(response)
    assert response.status_code == 201
    assert "x-aimlapi-usd-spent" not in response.headers
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks).startswith("Hello!")
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert "usage" not in finish  # unless it is asked for
    assert meta.keys() == {"meta"}
    asked = {**BODY, "stream": True, "stream_options": {"include_usage": True}}
    assert events(post(emulator, PATH, asked))[-2]["usage"]["total_tokens"]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"tools": [TOOL]}, "tools"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"model": LARGE, "tools": [TOOL]}, "tools"),
        ({"messages": [HELLO, {"role": "assistant", "content": "", "tool_calls": [CALL]}]}, "tool_calls"),
        ({"messages": [HELLO, {"role": "tool", "tool_call_id": "1", "content": "red"}]}, "messages.1.role"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"max_completion_tokens": 9}, "max_completion_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"min_p": 0}, "min_p"),
        ({"min_p": 1}, "min_p"),
        ({"seed": 0}, "seed"),
        ({"presence_penalty": -3}, "presence_penalty"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stream_options": {}}, "include_usage"),
        ({"parallel_tool_calls": True}, "parallel_tool_calls"),
        (user(image_part("file:///etc/passwd")), "body"),
        (user(image_part(data_url(image(kind="BMP"), "image/bmp"))), "Unsupported image type"),
        (user(image_part(data_url(image(), "image/gif"))), "is PNG and not image/gif"),
    ],
)
def test_what_the_schema_does_not_have_is_refused(emulator, change, place):
    response = post(emulator, PATH, {**BODY, **change})
    error = response.json()
    assert (response.status_code, error["statusCode"], error["path"]) == (400, "400", "/v1/chat/completions")
    assert error["message"].startswith("Body validation error!")
    assert place in error["message"]
    assert error["requestId"]
    assert response.headers["x-inference-id"]


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [({"authorization": "Bearer wrong"}, BODY, 401), ({}, {**BODY, "model": "gpt-4"}, 404)],
)
def test_keys_and_models_are_looked_at(emulator, headers, body, status):
    response = post(emulator, PATH, body, **headers)
    assert (response.status_code, response.json()["statusCode"]) == (status, str(status))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_it_sees_images(emulator, kind):
    url = data_url(image(kind=kind), f"image/{kind.lower()}")
    response = post(emulator, PATH, {**BODY, **user(image_part(url), {"type": "text", "text": "What?"})})
    assert response.json()["choices"][0]["message"]["content"] == "I see 1 image(s)."
    assert emulator.requests[0].images == [image(kind=kind)]


def test_the_large_model_knows_json_and_its_own_name_for_the_most_tokens(emulator):
    wanted = {"model": LARGE, "response_format": {"type": "json_object"}}
    assert post(emulator, PATH, {**BODY, **wanted}).json()["choices"][0]["message"]["content"].startswith("{")
    short = post(emulator, PATH, {**BODY, "model": LARGE, "max_completion_tokens": 2}).json()["choices"][0]
    assert (short["message"]["content"], short["finish_reason"]) == ("Hello! How", "length")


def test_512_tokens_are_the_most_unless_the_request_says_otherwise(emulator):
    counting = {"model": SMALL, "messages": [{"role": "user", "content": "Count to 600."}]}
    cut = post(emulator, PATH, counting).json()
    assert (cut["usage"]["completion_tokens"], cut["choices"][0]["finish_reason"]) == (512, "length")
    whole = post(emulator, PATH, {**counting, "max_tokens": 700}).json()
    assert (whole["usage"]["completion_tokens"], whole["choices"][0]["finish_reason"]) == (600, "stop")


def test_errors_and_replies_can_be_scripted_in_its_manner(emulator):
    emulator.script(emulator.refusal(403), completion("Hi!", usage={}))
    assert "run out of credits" in post(emulator, PATH, BODY).json()["message"]
    response = post(emulator, PATH, BODY)
    assert response.json()["choices"][0]["message"]["content"] == "Hi!"
    assert "x-aimlapi-usd-spent" not in response.headers
