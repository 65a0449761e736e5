"""The emulator itself: as strict as the documentation, and honest about what it saw."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.emulator import STALL, Emulator, completion, event_stream

ROOT = Path(__file__).resolve().parents[3]
HELLO = {"role": "user", "content": "Hello!"}
BODY = {"model": "meta-llama/Llama-3.2-11B-Vision-Instruct", "messages": [HELLO]}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"place": {"$ref": "#/$defs/Place"}, "days": {"type": "integer"}},
            "$defs": {"Place": {"type": "string"}},
        },
    },
}
NO_IMAGE = "data:image/png;base64," + base64.b64encode(b"no picture").decode()


def post(emulator: Emulator, body: Any = None, headers: dict[str, str] | None = None) -> httpx.Response:
    headers = {"authorization": f"Bearer {emulator.api_key}"} if headers is None else headers
    return httpx.post(f"{emulator.base_url}/chat/completions", json=body or BODY, headers=headers, timeout=10)


def events(response: httpx.Response) -> list[Any]:
    assert response.headers["content-type"] == "text/event-stream"
    payloads = [block.removeprefix("data: ") for block in response.text.split("\n\n") if block]
    assert payloads.pop() == "[DONE]"
    return [json.loads(payload) for payload in payloads]


def user(*content: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": "wrong"}])
def test_nobody_comes_in_without_the_key(emulator: Emulator, headers: dict[str, str]):
    response = post(emulator, headers=headers)
    assert response.status_code == 401
    assert response.json() == {"detail": {"error": "Not authenticated"}}


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"messages": None}, 422, "items"),
        ({"messages": []}, 422, "items"),
        ({"messages": [{"role": "robot", "content": "Hello!"}]}, 422, "role"),
        ({"messages": [{"role": "user", "content": 7}]}, 422, "str type"),
        ({"messages": [{"role": "user"}]}, 422, "field required"),
        ({"messages": [HELLO, {"role": "tool", "tool_call_id": "1", "content": "22"}]}, 400, "nobody made"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": []}]}, 422, "not empty"),
        ({"messages": [user({"type": "image_url", "image_url": NO_IMAGE})]}, 422, "a part is"),
        (
            {"messages": [user({"type": "image_url", "image_url": {"url": NO_IMAGE}})]},
            400,
            "Invalid image data",
        ),
        (
            {"messages": [user({"type": "image_url", "image_url": {"url": "data:image/png;base64,%%"}})]},
            400,
            "Invalid",
        ),
        (
            {"messages": [user({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}})]},
            400,
            "http",
        ),
        ({"messages": [user({"type": "input_text", "text": "Hello!"})]}, 422, "a part is"),
        ({"temperature": 3}, 422, "from 0 to 2"),
        ({"tools": []}, 400, "empty"),
        ({"tools": [{"name": "get_weather"}]}, 422, "a tool is"),
        ({"tool_choice": "required"}, 400, "needs tools"),
        ({"tools": [WEATHER], "tool_choice": "any"}, 422, "tool_choice"),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            400,
            "not offered",
        ),
        ({"response_format": {"type": "json"}}, 422, "unknown type"),
        ({"model": "gpt-4"}, 404, "Model not found"),
    ],
)
def test_what_the_documentation_does_not_allow_is_refused(
    emulator: Emulator, change: dict[str, Any], status: int, words: str
):
    response = post(emulator, {**BODY, **change})
    assert (response.status_code, words in response.text) == (status, True), response.text


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_a_field_that_is_missing_is_named_as_fastapi_does(emulator: Emulator, missing: str):
    response = post(emulator, {name: value for name, value in BODY.items() if name != missing})
    assert response.status_code == 422
    detail = {"loc": ["body", missing], "msg": "field required", "type": "value_error.missing"}
    assert response.json() == {"detail": [detail]}


def test_only_posts_are_answered(emulator: Emulator):
    response = httpx.get(f"{emulator.base_url}/chat/completions")
    assert (response.status_code, response.json()) == (405, {"detail": "Method Not Allowed"})


def test_a_stream_has_the_role_on_every_chunk_and_usage_on_the_last(emulator: Emulator):
    chunks = events(post(emulator, {**BODY, "stream": True}))
    assert len(chunks) > 3
    assert all(chunk["choices"][0]["delta"]["role"] == "assistant" for chunk in chunks[:-1])
    assert ["usage" in chunk for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1]["usage"]["estimated_cost"] > 0


def test_usage_in_a_stream_can_be_declined(emulator: Emulator):
    declined = {**BODY, "stream": True, "stream_options": {"include_usage": False}}
    assert not any("usage" in chunk for chunk in events(post(emulator, declined)))


@pytest.mark.parametrize(
    ("words", "choice", "arguments"),
    [
        ("What is the weather in San Francisco, CA?", "auto", {"place": "San Francisco, CA", "days": 1}),
        ("Use the tool for the next 3 days.", "auto", {"place": "an example of place", "days": 3}),
        ("Hello!", "required", {"place": "an example of place", "days": 1}),
        ("Hello!", "auto", None),
        ("What is the weather?", "none", None),
    ],
)
def test_a_tool_is_called_when_it_is_asked_for(
    emulator: Emulator, words: str, choice: str, arguments: dict[str, Any] | None
):
    body = {
        **BODY,
        "messages": [{"role": "user", "content": words}],
        "tools": [WEATHER],
        "tool_choice": choice,
    }
    choice = post(emulator, body).json()["choices"][0]
    if arguments is None:
        assert choice["message"]["content"] == "Hello! How can I help you today?"
    else:
        assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == arguments
        assert choice["finish_reason"] == "tool_calls"


def test_the_answer_of_a_tool_is_not_answered_with_another_call(emulator: Emulator):
    call = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "What is the weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "Sunny"},
    ]
    message = post(emulator, {**BODY, "messages": messages, "tools": [WEATHER]}).json()["choices"][0][
        "message"
    ]
    assert message == {"role": "assistant", "content": "The tool said: Sunny"}


def test_json_fits_the_schema_that_is_asked_for(emulator: Emulator):
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["cat", "dog"]}, "count": {"type": "integer"}},
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "animals", "schema": schema}}
    message = post(emulator, {**BODY, "response_format": wanted}).json()["choices"][0]["message"]
    assert json.loads(message["content"]) == {"kind": "cat", "count": 1}


def test_a_text_ends_at_a_stop_and_after_the_most_tokens(emulator: Emulator):
    first = post(emulator, {**BODY, "stop": ["you"]}).json()["choices"][0]
    assert (first["message"]["content"], first["finish_reason"]) == ("Hello! How can I help ", "stop")
    second = post(emulator, {**BODY, "max_tokens": 2}).json()["choices"][0]
    assert (second["message"]["content"], second["finish_reason"]) == ("Hello! How", "length")


def test_a_refused_request_uses_up_no_script_and_is_recorded(emulator: Emulator):
    emulator.script(completion("scripted"))
    assert post(emulator, {**BODY, "temperature": 3}).status_code == 422
    assert emulator.unplayed == 1
    assert post(emulator).json()["choices"][0]["message"]["content"] == "scripted"
    assert [received.body.get("temperature") for received in emulator.requests] == [3, None]


def test_a_reset_ends_answers_that_are_on_their_way(emulator: Emulator):
    emulator.script(event_stream(STALL))
    headers = {"authorization": f"Bearer {emulator.api_key}"}
    with httpx.stream(
        "POST", f"{emulator.base_url}/chat/completions", json=BODY, headers=headers
    ) as response:
        emulator.reset()
        with pytest.raises(httpx.TransportError):
            response.read()
    assert (emulator.requests, emulator.disconnects, emulator.unplayed) == ([], 0, 0)


def test_it_runs_alone_and_says_where():
    command = [sys.executable, "-u", "-m", "tests.emulator"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            base_url, key = re.findall(r"=(\S+)", process.stdout.readline() + process.stdout.readline())
            headers = {"authorization": f"Bearer {key}"}
            response = httpx.post(f"{base_url}/chat/completions", json=BODY, headers=headers, timeout=10)
        finally:
            process.terminate()
    assert response.json()["choices"][0]["message"]["content"] == "Hello! How can I help you today?"
