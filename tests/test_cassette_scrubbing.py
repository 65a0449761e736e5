"""Keys, accounts and pictures: taken out of what is recorded, and found where somebody put them in by hand."""

import base64
import hashlib
import json

import pytest
from vcr.request import Request

from llama_vision import ChatRequest, Image, Message, Text
from llama_vision.providers import PROVIDERS
from tests.cassette_cases import IMAGE
from tests.cassette_scrubbing import leaks, scrubbed, without_secrets, without_secrets_in_reply

HASH = hashlib.sha256(IMAGE).hexdigest()
ACCOUNT = "0123456789abcdef" * 2
TOKEN = "Ab3dEf6hIj" * 4  # as Cloudflare's look: 40 characters and no mark
EVERY_VARIABLE = sorted(
    {name for provider in PROVIDERS.values() for name in (*provider.key_env, *provider.account_env)}
)
PLANTED = {
    "authorization": "authorization: [Bearer 0123456789abcdef]",
    "OpenAI-like": "Incorrect API key provided: sk-proj-0123456789abcdef",
    "AI/ML API": "sk-aimlapi-0123456789abcdef",
    "AIGateway": "'sk-aig-0123456789abcdef'",
    "NVIDIA": "nvapi-0123456789abcdef",
    "Hugging Face": "hf_0123456789abcdefghij",
    "DeepInfra, scoped": "jwt:eyJhbGciOiJIUzI1NiJ9.0123456789.abc",
    "a JSON web token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
    "DeepInfra": "token: Ab3dEf6hIjKlMnOpQrStUvWxYz012345",
    "Cloudflare": TOKEN,
    "an account in an address": "/client/v4/accounts/0123/ai/run",
    "an account by itself": f"account {ACCOUNT} is blocked",
    "a request in JSON": '{"requestId": "798b860e"}',
    "a request in YAML": "requestId: 798b860e-98c2-4e8e-8c50-550bcfc2eccc",
    "a request in words": "AiError: Timeout (798b860e-98c2-4e8e-8c50-550bcfc2eccc)",
    "an image": f"url: data:image/png;base64,{base64.b64encode(IMAGE).decode()}",
    "an image without its address": base64.b64encode(IMAGE).decode(),
}


def call_of(provider, **account):
    """What the package sends for an image."""
    record = PROVIDERS[provider]
    request = ChatRequest(
        record.models[0].id, (Message("user", (Image(IMAGE, "image/png"), Text("What is it?"))),)
    )
    call = record.dialect.encode(request, stream=False)
    headers = {
        "content-type": "application/json",
        "authorization": f"Bearer {TOKEN}",
        "user-agent": "x",
        "x-key": TOKEN,
    }
    return Request("POST", record.base_url + call.path.format(**account), call.body, headers)


@pytest.mark.parametrize("text", PLANTED.values(), ids=PLANTED)
def test_what_is_planted_is_found(text):
    assert leaks(text)


@pytest.mark.parametrize("name", EVERY_VARIABLE)
def test_keys_and_accounts_of_the_environment_are_found_and_taken_out(name, monkeypatch):
    assert not leaks("my dear friend")
    monkeypatch.setenv(name, "dear friend ")
    assert leaks("my dear friend") == ["a key of the environment"]
    assert scrubbed(b"my dear friend") == b"my PLACEHOLDER"


def test_a_data_url_becomes_the_hash_of_its_image():
    request = without_secrets(call_of("deepinfra"))
    image = json.loads(request.body)["messages"][0]["content"][0]
    assert image == {"type": "image_url", "image_url": {"url": f"data:image/png;sha256,{HASH}"}}


def test_an_array_of_bytes_becomes_the_hash_of_its_image():
    request = without_secrets(call_of("cloudflare", account=ACCOUNT))
    assert json.loads(request.body)["image"] == f"sha256,{HASH}"


@pytest.mark.parametrize("image", ["data:image/png;base64,####", [1, 2, 300], [], [1.5]])
def test_what_is_no_image_does_not_stop_a_recording(image):
    json.loads(scrubbed(json.dumps({"image": image}).encode()))


def test_accounts_and_headers_are_taken_out_of_requests():
    request = without_secrets(call_of("cloudflare", account=ACCOUNT))
    path = "/client/v4/accounts/ACCOUNT/ai/run/@cf/meta/llama-3.2-11b-vision-instruct"
    assert request.uri == f"https://api.cloudflare.com{path}"
    assert request.headers == {"content-type": "application/json", "authorization": "PLACEHOLDER"}
    gateway = Request(
        "POST", f"https://gateway.ai.cloudflare.com/v1/{ACCOUNT}/mine/workers-ai/run/@cf/x", b"", {}
    )
    assert (
        without_secrets(gateway).uri
        == "https://gateway.ai.cloudflare.com/v1/ACCOUNT/GATEWAY/workers-ai/run/@cf/x"
    )


def test_secrets_are_taken_out_of_replies():
    body = {
        "message": f"Could not route to /client/v4/accounts/{ACCOUNT}/ai/run with Bearer {TOKEN}, or sk-aig-{TOKEN}",
        "requestId": "798b860e-98c2-4e8e-8c50-550bcfc2eccc",
        "errors": [{"message": "AiError: Timeout (798b860e-98c2-4e8e-8c50-550bcfc2eccc)"}],
        "input": f"data:image/png;base64,{base64.b64encode(IMAGE).decode()}",
    }
    headers = {
        "Content-Type": ["application/json"],
        "set-cookie": [TOKEN],
        "cf-ray": ["8f"],
        "x-request-id": ["r"],
    }
    reply = without_secrets_in_reply(
        {"status": {"code": 404}, "headers": headers, "body": {"string": json.dumps(body).encode()}}
    )
    assert reply["headers"] == {"Content-Type": ["application/json"]}
    assert json.loads(reply["body"]["string"]) == {
        "message": "Could not route to /client/v4/accounts/ACCOUNT/ai/run with PLACEHOLDER, or PLACEHOLDER",
        "requestId": "REQUEST_ID",
        "errors": [{"message": "AiError: Timeout (REQUEST_ID)"}],
        "input": f"data:image/png;sha256,{HASH}",
    }
    assert not leaks(reply["body"]["string"].decode())


def test_scrubbing_twice_is_as_scrubbing_once():
    everything = "\n".join(PLANTED.values()).encode() + call_of("cloudflare", account=ACCOUNT).body
    assert scrubbed(scrubbed(everything)) == scrubbed(everything)
