"""What a call makes of an address: what a model's name may be in it, where the key goes, and what errors say of it."""

import socket
from dataclasses import replace

import pytest

from llama_vision.adaptation.validate import validate_request
from llama_vision.backends import create_backend
from llama_vision.core.errors import ConnectionFailedError, ModelNotFoundError, UnsupportedInputError
from llama_vision.dialects.workers_ai.dialect import WorkersAiDialect
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision
from llama_vision.providers import find_provider
from llama_vision.testing import ScriptedServer
from tests.emulator import ACCOUNT_ID, json_answer, page
from tests.emulator.asking import WAYS, ask, backend_for, question

LEADS_AWAY = [
    "../../../../user/tokens",
    "..",
    "@cf/../../x",
    "@cf/./x",
    "m?a=b",
    "m#x",
    "m%2e%2e",
    "m%2f",
    "a\\b",
    "/m",
    "m/",
    "a//b",
    "m n",
    "m\n",
    "{account}",
    "ä",
]


@pytest.fixture(params=WAYS)
def way(request):
    return request.param


@pytest.fixture
def closed_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize("model", LEADS_AWAY)
def test_a_models_name_that_leads_out_of_its_place_in_an_address_is_refused(emulator_of, model):
    emulator = emulator_of("cloudflare")
    backend = backend_for(emulator, "cloudflare", account_id=ACCOUNT_ID)
    for way in WAYS:
        with pytest.raises(UnsupportedInputError, match="part of the address"):
            ask(backend, way, replace(question(), model=model))
    with pytest.raises(UnsupportedInputError, match="part of the address"):
        backend.accept_license(replace(question(), model=model))
    assert emulator.requests == []


@pytest.mark.parametrize(
    "model", ["@cf/meta/llama-3.2-11b-vision-instruct", "@hf/a.b/c_d~1+x:y", "m", "a..b"]
)
def test_an_ordinary_name_stands_in_the_address_as_it_is(model):
    request = replace(question(), model=model)
    validate_request(find_provider("cloudflare"), request)
    path = WorkersAiDialect().encode(request, stream=False).path
    assert path == f"/accounts/{{account}}/ai/run/{model}"


@pytest.mark.parametrize("model", ["../x", "m?a=b"])
def test_a_name_that_goes_into_the_body_may_be_anything(emulator_of, model):
    emulator = emulator_of("openai-compatible")
    with pytest.raises(ModelNotFoundError):
        ask(backend_for(emulator, "openai-compatible"), "complete", replace(question(), model=model))
    assert emulator.requests[0].body["model"] == model


@pytest.mark.parametrize("provider", ["azure", "io-net"])
def test_a_key_goes_where_the_record_says(emulator_of, way, provider):
    emulator = emulator_of("openai-compatible")
    emulator.api_key = None
    emulator.always(
        {"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}], "usage": None}
    )
    backend = backend_for(emulator, provider, api_key="the-key")
    assert ask(backend, way).text == "Hi"
    headers = emulator.requests[0].headers
    expected = ("the-key", None) if provider == "azure" else (None, "Bearer the-key")
    assert (headers.get("api-key"), headers.get("authorization")) == expected


@pytest.mark.parametrize(
    ("provider", "remedy"),
    [
        ("ollama", "Start the server with `ollama serve`, or set base_url to its address."),
        ("lmstudio", "`lms server start`"),
        ("openai-compatible", ""),
    ],
)
def test_a_server_that_is_not_there_is_named_with_its_address_and_what_starts_it(
    closed_port, way, provider, remedy
):
    url = f"http://127.0.0.1:{closed_port}/v1"
    backend = create_backend(find_provider(provider), base_url=url, max_retries=0)
    with pytest.raises(ConnectionFailedError) as caught:
        ask(backend, way)
    said = str(caught.value)
    assert f"No connection to http://127.0.0.1:{closed_port}: " in said
    assert remedy in said
    assert ("Start the server" in said) is bool(remedy)


WRONG_PATHS = {
    "text": page("404 page not found", 404),
    "FastAPI": json_answer({"detail": "Not Found"}, 404),
    "HTML": page("<title>404 Not Found</title>", 404),
    "the path": json_answer({"error": {"message": "Invalid URL (POST /chat/completions)"}}, 404),
}


@pytest.mark.parametrize("body", WRONG_PATHS)
def test_a_404_that_is_about_the_address_names_it_and_the_rule(emulator_of, way, body):
    emulator = emulator_of("openai-compatible")
    emulator.script(WRONG_PATHS[body])
    with pytest.raises(ModelNotFoundError) as caught:
        ask(backend_for(emulator, "openai-compatible"), way)
    assert f"The address was {emulator.base_url}/chat/completions: base_url has to be" in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "model 'x' not found"}},
        {"error": "Not found"},
        {"object": "error", "message": "The model `x` does not exist."},
    ],
    ids=repr,
)
def test_a_404_that_is_about_the_model_says_nothing_of_the_address(emulator_of, body):
    emulator = emulator_of("openai-compatible")
    emulator.script(json_answer(body, 404))
    with pytest.raises(ModelNotFoundError) as caught:
        ask(backend_for(emulator, "openai-compatible"), "complete")
    assert "The address" not in str(caught.value)


def test_a_404_of_cloudflare_does_not_tell_the_account(emulator_of):
    emulator = emulator_of("cloudflare")
    emulator.script(page("404 page not found", 404))
    request = replace(question(), model=find_provider("cloudflare").models[0].id)
    with pytest.raises(ModelNotFoundError) as caught:
        ask(backend_for(emulator, "cloudflare", account_id=ACCOUNT_ID), "complete", request)
    assert "/accounts/{account}/ai/run/" in str(caught.value)
    assert ACCOUNT_ID not in str(caught.value)


def test_ollamas_usual_address_works_in_both_frameworks():
    with ScriptedServer("Hi", "Hi") as server:
        address = server.base_url.removesuffix("/v1")
        options = {"provider": "ollama", "model": "llama3.2-vision"}
        assert ChatLlamaVision(base_url=address, **options).invoke("Hi").text == "Hi"
        assert LlamaVision(api_base=address, **options).complete("Hi").text == "Hi"
