"""Replies of providers, replayed from `cassettes/`. Each cassette says on its first line where it came from.

`make record PROVIDER=deepinfra` asks the provider itself again, with your own key, and writes them anew.
"""

import hashlib
import json
import re
from pathlib import Path

import pytest
import yaml
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from llama_vision.langchain import ChatLlamaVision
from llama_vision.providers import PROVIDERS
from llama_vision.providers.keys import key_in_environment

FOLDER = Path(__file__).resolve().parents[1] / "cassettes"
CONVERSATION = [
    SystemMessage("Respond like a michelin starred chef."),
    HumanMessage("Can you name at least two different techniques to cook lamb?"),
    AIMessage("Sous Vide, and Sous le Sable."),
    HumanMessage("Tell me more about the second method."),
]
CASES = {
    ("deepinfra", "hello"): [HumanMessage("Hello!")],
    ("deepinfra", "conversation"): CONVERSATION,
    ("deepinfra", "hello_streamed"): [HumanMessage("Hello!")],
}
EVERY_CASE = pytest.mark.parametrize(("provider", "name"), CASES, ids=map("-".join, CASES))
CASSETTES = sorted(FOLDER.rglob("*.yaml"))
KEPT_HEADERS = {"content-type", "retry-after"}
_EMBEDDED = re.compile(rb"data:(image/[a-z+.-]+);base64,([A-Za-z0-9+/=]{256,})")
_PROVENANCE = re.compile(r"# provenance: (documentation https://\S+|emulator|live \d{4}-\d\d-\d\d)\n")
_KEY = re.compile(r"(sk-|nvapi-|hf_|jwt:|Bearer )[A-Za-z0-9._-]{12,}")


def without_pictures(request):
    """Put hashes in the place of pictures, when recording and when comparing."""
    if isinstance(request.body, bytes):
        request.body = _EMBEDDED.sub(
            lambda m: b"data:%s;sha256,%s" % (m[1], hashlib.sha256(m[2]).hexdigest().encode()), request.body
        )
    return request


def without_secrets(response):
    headers = response["headers"]
    response["headers"] = {name: headers[name] for name in headers if name.lower() in KEPT_HEADERS}
    return response


@pytest.fixture(scope="module")
def vcr_config():
    return {
        "filter_headers": [("authorization", "PLACEHOLDER"), "user-agent", "accept-encoding", "cookie"],
        "match_on": ["method", "scheme", "host", "port", "path", "query", "body"],
        "decode_compressed_response": True,
        "before_record_request": without_pictures,
        "before_record_response": without_secrets,
    }


@pytest.fixture
def vcr_cassette_dir(request, record_mode):
    provider = request.node.callspec.params.get("provider", "")
    if record_mode != "none" and not key_in_environment(
        PROVIDERS[provider]
    ):  # before the old cassette is deleted
        pytest.exit(f"To record, set one of: {', '.join(PROVIDERS[provider].key_env)}", returncode=2)
    return str(FOLDER / provider)


@pytest.fixture
def default_cassette_name(request):
    return request.node.callspec.params.get("name", "")


def body_of(cassette):
    """The one reply that was replayed, or has just been recorded."""
    (response,) = cassette.responses
    body = response["body"]["string"]
    return body.decode() if isinstance(body, bytes) else body


def said(body):
    """Read the words of a recorded reply by the simplest means there are."""
    if not body.startswith("data:"):
        return json.loads(body)["choices"][0]["message"]["content"]
    payloads = re.findall(r"^data: (\{.*\})$", body, re.MULTILINE)
    deltas = [json.loads(payload)["choices"][0]["delta"] for payload in payloads]
    return "".join(delta.get("content") or "" for delta in deltas).removesuffix("</s>")


@pytest.mark.vcr
@pytest.mark.block_network
@EVERY_CASE
def test_what_the_provider_said_is_what_we_deliver(provider, name, vcr, record_mode):
    key = key_in_environment(PROVIDERS[provider]) or "recorded"
    model = ChatLlamaVision(provider=provider, api_key=key, max_retries=0)
    if name.endswith("_streamed"):
        text = "".join(chunk.text for chunk in model.stream(CASES[provider, name]))
    else:
        message = model.invoke(CASES[provider, name])
        text = message.text
        usage = json.loads(body_of(vcr))["usage"]
        assert message.usage_metadata["input_tokens"] == usage["prompt_tokens"]
        assert message.usage_metadata["output_tokens"] == usage["completion_tokens"]
        assert message.response_metadata["cost_usd"] == usage["estimated_cost"]
    assert vcr.all_played or record_mode != "none"
    assert text == said(body_of(vcr))
    assert text


@pytest.mark.vcr
@pytest.mark.block_network
@pytest.mark.parametrize(("provider", "name"), [("deepinfra", "hello")])
def test_another_question_is_not_answered_from_a_cassette(provider, name):
    model = ChatLlamaVision(provider=provider, api_key="recorded", max_retries=0)
    with pytest.raises(Exception, match="No match for the request"):
        model.invoke("Something else")


@pytest.mark.parametrize("path", CASSETTES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_cassette_is_used_tells_its_provenance_and_holds_no_key(path):
    text = path.read_text()
    assert (path.parent.name, path.stem) in CASES
    assert _PROVENANCE.match(text), "the first line has to say where it came from"
    assert not _KEY.search(text)
    for interaction in yaml.safe_load(text)["interactions"]:
        assert interaction["request"]["headers"]["authorization"] == ["PLACEHOLDER"]
