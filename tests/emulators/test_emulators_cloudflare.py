"""Cloudflare's emulator, the native route: as strict as the model's schema, and as odd as its users found it."""

import pytest

from tests.emulator import ACCOUNT_ID, completion
from tests.emulator.posting import data_url, events, image, post

MODEL = "@cf/meta/llama-3.2-11b-vision-instruct"
PATH = f"/accounts/{ACCOUNT_ID}/ai/run/{MODEL}"
HELLO = {"role": "user", "content": "Hello!"}
BODY = {"messages": [HELLO]}
PLACE = {"type": "string", "description": "Where."}


@pytest.fixture
def emulator(emulator_of):
    return emulator_of("cloudflare")


def tool(properties):
    parameters = {"type": "object", "properties": properties}
    return {"name": "get_weather", "description": "Tells it.", "parameters": parameters}


def failure(response):
    body = response.json()
    assert (body["success"], body["result"], body["messages"]) == (False, None, [])
    (error,) = body["errors"]
    return response.status_code, error["code"], error["message"]


@pytest.mark.parametrize("body", [BODY, {"prompt": "Hello!"}])
def test_a_reply_comes_in_an_envelope_and_does_not_say_why_it_ended(emulator, body):
    response = post(emulator, PATH, body)
    result = response.json().pop("result")
    assert response.json() == {"result": result, "success": True, "errors": [], "messages": []}
    assert result.keys() == {"response", "tool_calls", "usage"}
    assert (result["response"], result["tool_calls"]) == ("Hello! How can I help you today?", [])
    assert isinstance(result["usage"].pop("neurons"), float)
    assert result["usage"] == {"prompt_tokens": 1, "completion_tokens": 7, "total_tokens": 8}
    assert response.headers["cf-ray"]


def test_a_stream_has_padding_and_its_usage_at_the_end(emulator):
    chunks = events(post(emulator, PATH, {**BODY, "stream": True}))
    assert "".join(chunk["response"] for chunk in chunks) == "Hello! How can I help you today?"
    assert all("p" in chunk for chunk in chunks)
    assert ["usage" in chunk for chunk in chunks] == [False] * 7 + [True]
    assert not any("choices" in chunk or "id" in chunk for chunk in chunks)


@pytest.mark.parametrize(
    "offered", [tool({"place": PLACE}), {"type": "function", "function": tool({"place": PLACE})}]
)
def test_calls_are_flat_without_ids_and_their_arguments_an_object(emulator, offered):
    body = {"messages": [{"role": "user", "content": "What is the weather in Paris?"}], "tools": [offered]}
    result = post(emulator, PATH, body).json()["result"]
    assert result["response"] is None
    assert result["tool_calls"] == [{"name": "get_weather", "arguments": {"place": "Paris"}}]


def test_streamed_calls_come_in_pieces_and_end_with_one_that_means_nothing(emulator):
    emulator.script(completion(calls=[("get_weather", {"place": "Paris"})]))
    first, *parts, nothing, last = events(post(emulator, PATH, {**BODY, "stream": True}))
    (named,) = first["tool_calls"]
    assert named == {
        "id": "call_00000000",
        "type": "function",
        "index": 0,
        "function": {"name": "get_weather"},
    }
    assert "".join(part["tool_calls"][0]["function"]["arguments"] for part in parts) == '{"place": "Paris"}'
    assert nothing["tool_calls"][0] == {
        "id": None,
        "type": None,
        "index": 0,
        "function": {"name": None, "arguments": ""},
    }
    assert last["usage"]


def test_the_documented_complaint_is_word_for_word(emulator):
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello!"}]}]}
    words = (
        "AiError: Bad input: Error: oneOf at '/' not met, 0 matches: required properties at '/' are 'prompt', "
        "Type mismatch of '/messages/0/content', 'array' not in 'string'"
    )
    assert failure(post(emulator, PATH, body)) == (400, 5006, words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"messages": [{"role": "assistant", "content": None}]}, "'null' not in 'string'"),
        ({"messages": [{"role": "user"}]}, "'role,content'"),
        ({"messages": []}, "/messages"),
        ({"prompt": "Hello!"}, "2 matches"),
        ({"stop": ["."]}, "/stop"),
        ({"response_format": {"type": "json_object"}}, "/response_format"),
        ({"tool_choice": "auto"}, "/tool_choice"),
        ({"n": 1}, "/n"),
        ({"logprobs": True}, "/logprobs"),
        ({"min_p": 0.1}, "/min_p"),
        ({"model": MODEL}, "/model"),
        ({"raw": True}, "/raw"),
        ({"temperature": 5.1}, "<= 5"),
        ({"top_p": 2.1}, "<= 2"),
        ({"top_k": 0}, ">= 1"),
        ({"top_k": 51}, "<= 50"),
        ({"top_k": 1.5}, "'integer'"),
        ({"seed": 0}, ">= 1"),
        ({"seed": 10_000_000_000}, "<= 9999999999"),
        ({"presence_penalty": -0.1}, ">= 0"),
        ({"temperature": None}, "'null' not in 'number'"),
        ({"stream": "yes"}, "'boolean'"),
        ({"image": [256]}, "0 to 255"),
        ({"image": {"url": "x"}}, "'object' not in 'array,string'"),
        ({"tools": [tool({"place": {"type": "string"}})]}, "'type,description'"),
        ({"tools": [tool({"place": {"description": "Where."}})]}, "'type,description'"),
        ({"tools": [{**tool({}), "parameters": {}}]}, "'type,properties'"),
        ({"tools": [{"type": "function", "function": {"name": "x"}}]}, "/tools/0/function"),
    ],
)
def test_what_the_schema_does_not_have_is_refused(emulator, change, words):
    status, code, message = failure(post(emulator, PATH, {**BODY, **change}))
    assert (status, code) == (400, 5006)
    assert words in message


@pytest.mark.parametrize("form", ["array", "data_url"])
@pytest.mark.parametrize("rest", [BODY, {"prompt": "What?"}])
def test_it_sees_one_image_beside_the_words(emulator, rest, form):
    given = list(image()) if form == "array" else data_url(image())
    response = post(emulator, PATH, {**rest, "image": given})
    assert response.json()["result"]["response"] == "I see 1 image(s)."
    assert emulator.requests[0].images == [image()]


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"image": list(b"no picture")}, 8005, "Invalid image"),
        ({"image": data_url(b"<svg/>", "image/svg+xml")}, 8005, "Unsupported image type"),
        ({"image": list(image(1))}, 8005, "image dimensions must be at least 10px (got 1x1)"),
        ({"image": "iVBORw0KGgo="}, 5004, "reason expected `;base64,`"),
        ({"messages": [{"role": "user", "content": "See data:image/png;base64,iVBO"}]}, 8006, "image"),
    ],
)
def test_images_are_opened_even_where_none_is_meant(emulator, change, code, words):
    status, seen, message = failure(post(emulator, PATH, {**BODY, **change}))
    assert (status, seen) == (400, code)
    assert words in message


def test_what_may_be_answered_counts_as_context(emulator):
    status, code, message = failure(post(emulator, PATH, {**BODY, "max_tokens": 128_000}))
    assert (status, code) == (413, 5021)
    assert "(128001) exceeded this model context window limit (128000)" in message


def test_256_tokens_are_the_most_unless_the_request_says_otherwise(emulator):
    counting = {"prompt": "Count to 300."}
    assert post(emulator, PATH, counting).json()["result"]["usage"]["completion_tokens"] == 256
    more = post(emulator, PATH, {**counting, "max_tokens": 400}).json()["result"]
    assert more["usage"]["completion_tokens"] == 300


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        (PATH.replace("0123", "4567"), {}, 404, 7003),
        (PATH, {"authorization": "Bearer wrong"}, 401, 10000),
        (PATH.replace("11b", "90b"), {}, 400, 5007),
        ("/nowhere", {}, 404, 7000),
    ],
)
def test_wrong_addresses_and_tokens_are_told_apart(emulator, path, headers, status, code):
    assert failure(post(emulator, path, BODY, **headers))[:2] == (status, code)


def test_nothing_is_answered_before_somebody_agrees(emulator):
    emulator.dialect.license_accepted = False
    chat = f"/accounts/{ACCOUNT_ID}/ai/v1/chat/completions"
    for path, body in ((PATH, BODY), (PATH, {"prompt": "Agree?"}), (chat, {"model": MODEL, **BODY})):
        status, code, message = failure(post(emulator, path, body))
        assert (status, code) == (403, 5016)
        assert "you must submit the prompt 'agree'" in message
    post(emulator, PATH, {"prompt": "agree"})
    assert post(emulator, PATH, BODY).json()["success"]
    emulator.reset()
    assert emulator.dialect.license_accepted


def test_errors_can_be_scripted_in_its_manner(emulator):
    emulator.script(emulator.refusal(429), emulator.refusal(429, code=3036))
    assert failure(post(emulator, PATH, BODY))[:2] == (429, 3040)
    status, code, message = failure(post(emulator, PATH, BODY))
    assert (status, code) == (429, 3036)
    assert "neurons" in message
