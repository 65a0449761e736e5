"""A request that is refused has none of its images fetched, read or decoded."""

import asyncio
import base64

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock

from llama_vision import ChatRequest, Image, Message, Text, Tool, ToolCall, ToolResult
from llama_vision.adaptation.pipeline import aadapt_request, adapt_request
from llama_vision.backends import create_backend
from llama_vision.core.errors import ConfigurationError, ImageError, LlamaVisionError, UnsupportedInputError
from llama_vision.core.request import ResponseFormat
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.images.fetch_policy import FetchPolicy
from llama_vision.images.settings import ImageSettings
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision
from llama_vision.providers import PROVIDERS, find_provider
from tests.images.image_server import ImageServer, answer

PNG = SAMPLE_IMAGES["circle"].read_bytes()
CLOSED = "http://127.0.0.1:9/v1"
KEYS = {"api_key": "k", "account_id": "a"}
FETCHING = ImageSettings(fetch=FetchPolicy(private_networks=True))
DAMAGED = Image(data=PNG[:40], media_type="image/png")

REFUSED = {
    "temperature": {**KEYS, "temperature": 99},
    "no key": {"account_id": "a"},
    "a key that is none": {**KEYS, "api_key": "a key"},
    "no account": {"api_key": "k"},
    "an account that is none": {**KEYS, "account_id": "a/b"},
    "max_tokens": {**KEYS, "max_tokens": 0},
    "a header": {**KEYS, "default_headers": {"x": "a\nb"}},
    "a header's name": {**KEYS, "default_headers": {"no name": "a"}},
    "a space at a header's end": {**KEYS, "default_headers": {"x": "a "}},
    "an address without a host": {**KEYS, "address": "http://"},
    "an address that is none": {**KEYS, "address": "http://[::1"},
    "a scheme": {**KEYS, "address": "ftp://example.com"},
}


@pytest.fixture
def server():
    with ImageServer() as server:
        server.answers["/a.png"] = [answer(PNG)]
        yield server


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    for name in (*PROVIDERS["cloudflare"].key_env, *PROVIDERS["cloudflare"].account_env):
        monkeypatch.delenv(name, raising=False)


def langchain(url, options, *, streamed, awaited):
    address = options.pop("address", CLOSED)
    model = ChatLlamaVision(
        provider="cloudflare", base_url=address, image_private_networks=True, max_retries=0, **options
    )
    prompt = [HumanMessage([{"type": "image", "url": url}, {"type": "text", "text": "?"}])]

    async def consume():
        return [chunk async for chunk in model.astream(prompt)]

    if awaited:
        return asyncio.run(consume() if streamed else model.ainvoke(prompt))
    return list(model.stream(prompt)) if streamed else model.invoke(prompt)


def llamaindex(url, options, *, streamed, awaited):
    address = options.pop("address", CLOSED)
    model = LlamaVision(
        provider="cloudflare", api_base=address, image_private_networks=True, max_retries=0, **options
    )
    prompt = [ChatMessage(blocks=[ImageBlock(url=url), TextBlock(text="?")])]

    async def consume():
        return [chunk async for chunk in await model.astream_chat(prompt)]

    if awaited:
        return asyncio.run(consume() if streamed else model.achat(prompt))
    return list(model.stream_chat(prompt)) if streamed else model.chat(prompt)


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("ask", [langchain, llamaindex])
@pytest.mark.parametrize("options", REFUSED.values(), ids=REFUSED)
def test_what_is_refused_has_no_image_fetched(server, options, ask, streamed, awaited):
    with pytest.raises((ConfigurationError, UnsupportedInputError)):
        ask(server.url(), dict(options), streamed=streamed, awaited=awaited)
    assert server.connections == 0


@pytest.mark.parametrize("ask", [langchain, llamaindex])
def test_what_is_not_refused_has_its_image_fetched(server, ask):
    with pytest.raises(LlamaVisionError, match="No connection"):
        ask(server.url(), dict(KEYS), streamed=False, awaited=False)
    assert server.connections == 1


TOOL = Tool("look")
BROKEN_TOOL = Tool("look", parameters={"default": float("nan")})
CALL = Message("assistant", (ToolCall("1", "look", "{}"),))


def requests(image):
    """By what each is refused for: provider, request."""
    user = Message("user", (image, Text("?")))
    ask = ChatRequest("m", (user,))
    return {
        "tools": ("aimlapi", ChatRequest("m", (user,), tools=(TOOL,), text_tool_calls=False)),
        "response_format": ("aimlapi", ChatRequest(PROVIDERS["aimlapi"].models[0].id, (user,), response_format=ResponseFormat("json_object"))),
        "no model": ("cloudflare", ChatRequest(" ", (user,))),
        "too many images": ("cloudflare", ChatRequest("m", (user, CALL, user))),
        "no images at all": ("cloudflare-openai", ask),
        "a system prompt alone": ("local", ChatRequest("tiny", (Message("system", (Text("Be kind."),)), Message("tool", (ToolResult("1", (image,)),))), text_tool_calls=False)),
        "an image in a system prompt": ("together", ChatRequest("m", (Message("system", (image,)), user))),
        "a call of the user's": ("together", ChatRequest("m", (user, Message("user", CALL.parts)))),
        "a definition": ("cloudflare", ChatRequest("m", (user,), tools=(BROKEN_TOOL,))),
        "a definition for who knows tools": ("together", ChatRequest("m", (user,), tools=(BROKEN_TOOL,))),
        "extra_body with a field of ours": ("cloudflare", ChatRequest("m", (user,), extra_body={"messages": []})),
        "extra_body without a server": ("local", ChatRequest("tiny", (user,), extra_body={"seed": 1})),
        "sampling of the local model": ("local", ChatRequest("tiny", (user,), stop=("x",), sampling=ask.sampling.__class__(temperature=-1))),
    }  # fmt: skip


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("reason", requests(DAMAGED))
def test_a_refused_request_has_nothing_decoded_either(server, reason, awaited):
    for image in (Image(url=server.url()), DAMAGED):
        provider, request = requests(image)[reason]
        backend = create_backend(find_provider(provider), images=FETCHING, **(KEYS if provider == "cloudflare" else {"api_key": "k"}), **({} if provider == "local" else {"base_url": CLOSED, "max_retries": 0}))  # fmt: skip
        with pytest.raises((ConfigurationError, UnsupportedInputError)):
            asyncio.run(backend.acomplete(request)) if awaited else backend.complete(request)
    assert server.connections == 0


def test_too_many_for_a_sheet_are_not_fetched(server):
    images = (Image(url=server.url()),) * 101
    request = ChatRequest("m", (Message("user", (*images, Text("?"))),))
    settings = ImageSettings(on_too_many="grid", fetch=FetchPolicy(private_networks=True))
    with pytest.raises(ImageError, match="1 to 100 images, and there are 101"):
        adapt_request(PROVIDERS["cloudflare"], request, settings, **KEYS)
    assert server.connections == 0


@pytest.mark.parametrize("policy", ["first", "grid"])
def test_too_many_images_still_pass_where_the_policy_says_so(server, policy):
    images = (Image(url=server.url()), Image(data=PNG, media_type="image/png"))
    request = ChatRequest("m", (Message("user", (*images, Text("?"))),))
    settings = ImageSettings(on_too_many=policy, fetch=FetchPolicy(private_networks=True))
    backend = create_backend(PROVIDERS["cloudflare"], base_url=CLOSED, images=settings, max_retries=0, **KEYS)
    with pytest.raises(LlamaVisionError, match="No connection"):
        backend.complete(request)
    assert server.connections == 1


def test_images_too_many_are_not_fetched(server):
    images = (Image(data=PNG, media_type="image/png"), Image(url=server.url()))
    request = ChatRequest("m", (Message("user", (*images, Text("?"))),))
    settings = ImageSettings(on_too_many="first", fetch=FetchPolicy(private_networks=True))
    adapted = adapt_request(PROVIDERS["cloudflare"], request, settings, **KEYS)
    assert adapted.request.images() == [images[0]]
    assert asyncio.run(aadapt_request(PROVIDERS["cloudflare"], request, settings, **KEYS)) == adapted
    assert server.connections == 0
    assert "api_key" not in repr(adapted)


def test_a_conversation_with_a_system_prompt_still_passes():
    block = {"type": "image", "base64": base64.b64encode(PNG).decode(), "mime_type": "image/png"}
    prompt = [SystemMessage("Be kind."), HumanMessage([block]), AIMessage("A square."), HumanMessage("Sure?")]
    model = ChatLlamaVision(provider="cloudflare", base_url=CLOSED, max_retries=0, **KEYS)
    with pytest.raises(LlamaVisionError, match="No connection"):
        model.invoke(prompt)
