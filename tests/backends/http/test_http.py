"""A hosted model over a real socket: the four ways to ask are one."""

import asyncio
import io
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import PIL.Image
import pytest

from llama_vision import ChatRequest, Image, Message, SamplingParams, Text, Tool
from llama_vision.backends import create_backend
from llama_vision.core.errors import ConfigurationError, ImageError, UnsupportedInputError
from llama_vision.core.events import Finished, Started
from llama_vision.providers import find_provider
from llama_vision.version import __version__
from tests.emulator import Emulator, Received, Wait, chunks, completion, event_stream
from tests.emulator.asking import MODEL, WAYS, aask, ask, backend_for, collected, question

TWO_CALLS = [("get_weather", {"city": "Zürich", "days": 3}), ("get_time", {"zone": "Asia/Tokyo"})]
REPLIES = {
    "text": completion("Hello! How are you?"),
    "leading space": completion(" Hello!"),
    "unicode": completion('Grüße, 日本, 🦙\u2028 and \u0085: \\n "quoted"'),
    "stop token": completion("A cat.</s>"),
    "two parallel tool calls": completion(calls=TWO_CALLS),
    "text before tool calls": completion("I will look.", calls=TWO_CALLS),
    "call without arguments": completion(calls=[("ping", "")]),
    "cut off": completion("A cat sits on", finish_reason="length"),
    "unknown reason": completion("A cat", finish_reason="model_length"),
    "cached": completion(
        "Hi",
        usage={
            "prompt_tokens": 1650,
            "completion_tokens": 1,
            "prompt_tokens_details": {"cached_tokens": 1601},
            "estimated_cost": 0.0000268,
        },
    ),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return request.param


def pil_images() -> list[Image]:
    images = []
    for number, kind in enumerate(("PNG", "JPEG", "WEBP")):
        buffer = io.BytesIO()
        PIL.Image.new("RGB", (30 + number, 20), (200, 30 * number, 10)).save(buffer, kind)
        images.append(Image(buffer.getvalue(), f"image/{kind.lower()}"))
    return images


@pytest.mark.parametrize("provider", ["deepinfra", "openai-compatible"])
@pytest.mark.parametrize("name", REPLIES)
def test_the_four_ways_give_the_same_reply(emulator: Emulator, provider: str, name: str):
    emulator.script(*[REPLIES[name]] * 4)
    backend = backend_for(emulator, provider)
    first, *others = [ask(backend, way) for way in WAYS]
    for other in others:
        if name == "call without arguments":  # its text may differ: both mean the empty object
            assert [call.parsed() for call in other.tool_calls] == [
                call.parsed() for call in first.tool_calls
            ]
        assert other == first


def test_nothing_of_a_reply_is_lost(emulator: Emulator, way: str):
    emulator.script(completion("Grüße 🦙", calls=TWO_CALLS, id="reply-1"))
    reply = ask(backend_for(emulator), way)
    assert reply.text == "Grüße 🦙"
    assert [(call.name, call.parsed()) for call in reply.tool_calls] == TWO_CALLS
    assert [call.id for call in reply.tool_calls] == ["call_00000000", "call_00000001"]
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (15, 2)
    assert reply.usage.cost_usd == pytest.approx(17 * 0.055e-6)
    assert not reply.usage.cost_is_estimate
    assert (reply.finish_reason, reply.model, reply.id) == ("tool_calls", MODEL, "reply-1")


@pytest.mark.parametrize("name", REPLIES)
def test_stream_and_astream_give_the_same_events_from_started_to_finished(emulator: Emulator, name: str):
    emulator.script(REPLIES[name], REPLIES[name])
    backend = backend_for(emulator)
    events = list(backend.stream(question()))
    assert events == asyncio.run(collected(backend.astream(question())))
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)


def test_images_arrive_as_they_were_sent(emulator: Emulator, way: str):
    images = pil_images()
    request = ChatRequest(MODEL, (Message("user", (*images, Text("What is this?"))),))
    reply = ask(backend_for(emulator), way, request)
    assert emulator.requests[0].images == [image.data for image in images]
    assert reply.text == "I see 3 image(s)."


def test_a_broken_image_is_refused_before_anything_is_sent(emulator: Emulator, way: str):
    request = ChatRequest(MODEL, (Message("user", (Image(b"no png", "image/png"),)),))
    with pytest.raises(ImageError, match=r"Image 1, of message 0 \(user\).*\[deepinfra, meta-llama"):
        ask(backend_for(emulator), way, request)
    assert emulator.requests == []


def test_tools_and_their_choice_arrive(emulator: Emulator, way: str):
    tool = Tool(
        "get_weather",
        "Look out of the window.",
        {"type": "object", "properties": {"city": {"type": "string"}}},
    )
    reply = ask(backend_for(emulator), way, question("What is the weather in Paris?", tools=(tool,)))
    assert [(call.name, call.parsed()) for call in reply.tool_calls] == [("get_weather", {"city": "Paris"})]
    assert reply.finish_reason == "tool_calls"


def test_the_headers_say_who_asks_and_what_for(emulator: Emulator, way: str):
    ask(backend_for(emulator, headers={"x-team": "vision"}), way)
    headers = emulator.requests[0].headers
    assert headers["authorization"] == f"Bearer {emulator.api_key}"
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"] == f"llama-vision/{__version__}"
    assert headers["accept"] == ("text/event-stream" if "stream" in way else "application/json")
    assert headers["x-team"] == "vision"


def test_what_cannot_be_sent_is_refused_before_anything_is(emulator: Emulator, way: str):
    with pytest.raises(UnsupportedInputError, match=r"temperature=9.*\[deepinfra, meta-llama"):
        ask(backend_for(emulator), way, question(sampling=SamplingParams(temperature=9)))
    assert emulator.requests == []


@pytest.mark.parametrize("address", ["api.deepinfra.com/v1", "ftp://127.0.0.1/v1", "/v1"])
def test_an_address_without_http_is_refused(address: str):
    with pytest.raises(ConfigurationError, match="http"):
        create_backend(find_provider("deepinfra"), base_url=address)


@pytest.mark.parametrize("address", ["http://[::1", "http://127.0.0.1:port/v1", "http://"])
def test_an_address_that_is_none_is_refused_at_once(address: str):
    with pytest.raises(ConfigurationError, match=r"The address can't be used.*\[deepinfra"):
        create_backend(find_provider("deepinfra"), base_url=address)


def test_a_provider_without_an_address_asks_for_one():
    with pytest.raises(ConfigurationError, match="needs base_url"):
        create_backend(find_provider("openai-compatible"))


def test_a_slash_at_the_end_of_the_address_does_no_harm(emulator: Emulator):
    ask(backend_for(emulator, base_url=emulator.base_url + "/"), "complete")
    assert emulator.requests[0].path == "/v1/openai/chat/completions"


@pytest.mark.parametrize("way", ["complete", "stream"])
def test_the_users_own_client_is_used_and_left_open(emulator: Emulator, way: str):
    with httpx.Client(headers={"x-own": "client"}) as client:
        ask(backend_for(emulator, http_client=client), way)
        assert not client.is_closed
    assert emulator.requests[0].headers["x-own"] == "client"


@pytest.mark.parametrize("way", ["acomplete", "astream"])
async def test_the_users_own_async_client_is_used_and_left_open(emulator: Emulator, way: str):
    async with httpx.AsyncClient(headers={"x-own": "client"}) as client:
        await aask(backend_for(emulator, http_async_client=client), way)
        assert not client.is_closed
    assert emulator.requests[0].headers["x-own"] == "client"


def slow_echo(received: Received):
    """Repeat the user's words, slowly enough that answers overlap."""
    reply = completion(f"{received.body['messages'][-1]['content']} and nothing else", model=MODEL)
    if not received.streamed:
        return reply
    return event_stream(*[step for chunk in chunks(reply) for step in (chunk, Wait(0.002))], "[DONE]")


@pytest.mark.parametrize("way", ["complete", "stream"])
def test_replies_to_20_threads_are_never_mixed(emulator: Emulator, way: str):
    emulator.always(slow_echo)
    backend = backend_for(emulator)
    together = threading.Barrier(20)

    def several(thread: int) -> None:
        together.wait()
        for number in range(4):
            name = f"thread {thread} question {number}"
            assert ask(backend, way, question(name)).text == f"{name} and nothing else"

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(several, range(20)))
    assert len(emulator.requests) == 80
    assert emulator.connections > 1


@pytest.mark.parametrize("way", ["acomplete", "astream"])
async def test_replies_to_50_coroutines_are_never_mixed(emulator: Emulator, way: str):
    emulator.always(slow_echo)
    backend = backend_for(emulator)
    names = [f"coroutine {number}" for number in range(50)]
    replies = await asyncio.gather(*(aask(backend, way, question(name)) for name in names))
    assert [reply.text for reply in replies] == [f"{name} and nothing else" for name in names]
    assert emulator.connections > 1
