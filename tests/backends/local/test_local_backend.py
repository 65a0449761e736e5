"""The local backend with the tiny model's real weights: images, streams, limits, cancellation, errors."""

import asyncio
import random
import subprocess
import sys
import threading
import time

import pytest

from llama_vision import (
    ChatRequest,
    Message,
    ResponseFormat,
    SamplingParams,
    Text,
    Tool,
    ToolChoice,
    image_from_any,
)
from llama_vision.backends import create_backend
from llama_vision.backends.local.engine_thread import get_engine_thread
from llama_vision.core.errors import (
    ContextTooLongError,
    ImageError,
    LocalModelError,
    RequestTimeoutError,
    UnsupportedInputError,
)
from llama_vision.core.events import Finished, Started, TextDelta, UsageReport
from llama_vision.core.messages import Image, ToolResult
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.providers import find_provider
from tests.drawing import COLORS, SHAPES, one_shape, scene, sign
from tests.emulator.asking import WAYS
from tests.emulator.asking import ask as ask_in

LONG = "Repeat: " + " ".join(["Paris London Berlin Tokyo Madrid Rome Oslo Cairo"] * 8)

ENDLESS = SamplingParams(max_tokens=1500, temperature=50.0, top_k=1000, seed=26)
"""More than a thousand tokens, which take seconds."""


@pytest.fixture
def backend():
    return create_backend(find_provider("local"))


def ask(text, *images, **options):
    parts = (*(image_from_any(image) for image in images), Text(text))
    return ChatRequest("tiny", (Message("user", parts),), **options)


@pytest.mark.parametrize("seed", range(40))
def test_the_colour_and_shape_of_what_was_just_drawn(backend, seed):
    image, color, shape = one_shape(seed)
    assert backend.complete(ask(f"What color is the {shape}?", image)).text == color
    assert backend.complete(ask(f"What shape is {color}?", image)).text == shape


def test_it_counts_and_reads(backend):
    chance = random.Random(5)
    right = asked = 0
    for _ in range(25):
        count = chance.randint(2, 5)
        cells = chance.sample([(column, row) for column in range(3) for row in range(3)], count)
        objects = [(chance.choice(sorted(COLORS)), chance.choice(SHAPES), *cell) for cell in cells]
        right += backend.complete(ask("How many objects are there?", scene(*objects))).text == str(count)
        word = chance.choice(["EXIT", "STOP", "TAXI", "42", "2026"])
        right += backend.complete(ask("What does the sign say?", sign(word))).text == word
        asked += 2
    assert right / asked >= 0.9


def test_the_events_of_a_stream(backend):
    events = list(backend.stream(ask("Describe the image.", one_shape(1)[0])))
    assert [type(event) for event in events[:2]] == [Started, TextDelta]
    assert [type(event) for event in events[-2:]] == [UsageReport, Finished]
    assert len([event for event in events if isinstance(event, TextDelta)]) > 3


def test_text_is_streamed_as_it_is_generated(backend):
    backend.complete(ask("Hi"))
    began = time.monotonic()
    moments = [
        time.monotonic() - began
        for event in backend.stream(ask(LONG, sampling=SamplingParams(max_tokens=120)))
        if isinstance(event, TextDelta)
    ]
    assert moments[0] < moments[-1] / 2


def test_max_tokens_ends_with_length(backend):
    reply = backend.complete(ask(LONG, sampling=SamplingParams(max_tokens=3)))
    assert (reply.finish_reason, reply.usage.output_tokens) == ("length", 3)


def test_a_stop_string_ends_the_text_before_it(backend):
    reply = backend.complete(ask("Repeat: Paris London Berlin", stop=("London",)))
    assert (reply.text, reply.finish_reason) == ("Paris ", "stop")


def test_a_seed_makes_sampling_repeatable_and_leaves_the_global_generator_alone(backend):
    import torch

    sampled = ask("Describe the image.", one_shape(3)[0], sampling=SamplingParams(temperature=3.0, seed=11))
    greedy = ask("Describe the image.", one_shape(3)[0], sampling=SamplingParams(temperature=0))
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, second = backend.complete(sampled).text, backend.complete(sampled).text
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first == second != backend.complete(greedy).text


def test_special_tokens_in_a_users_text_are_text(backend):
    plain = backend.complete(ask("Repeat: Paris")).usage.input_tokens
    with_special = backend.complete(ask("Repeat: Paris<|eot_id|><|image|>")).usage.input_tokens
    assert with_special > plain + 4  # as special tokens they would be two


def test_a_tool_round(backend):
    tool = Tool(
        "get_weather",
        "Get the weather",
        {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    )
    question = Message("user", (Text("What is the weather for Paris?"),))
    called = backend.complete(ChatRequest("tiny", (question,), tools=(tool,)))
    (call,) = called.tool_calls
    assert (called.text, called.finish_reason) == ("", "tool_calls")
    assert (call.name, call.parsed()) == ("get_weather", {"city": "Paris"})
    asked = Message("assistant", (call,))
    result = Message("tool", (ToolResult(call.id, (Text('{"temperature": 21}'),)),))
    assert "21" in backend.complete(ChatRequest("tiny", (question, asked, result), tools=(tool,))).text


def test_an_endless_reply_takes_long_so_that_the_next_tests_prove_something(backend):
    began = time.monotonic()
    assert backend.complete(ask("Hi", sampling=ENDLESS)).usage.output_tokens > 1000
    assert time.monotonic() - began > 1.0


def test_closing_a_stream_stops_the_sequence(backend):
    stream = backend.stream(ask("Hi", sampling=ENDLESS))
    assert isinstance(next(stream), Started)
    next(stream)
    stream.close()
    began = time.monotonic()
    assert backend.complete(ask("Say hi")).text == "Hi"
    assert time.monotonic() - began < 1.0


async def test_closing_an_async_stream_stops_the_sequence(backend):
    async for event in backend.astream(ask("Hi", sampling=ENDLESS)):
        if isinstance(event, TextDelta):
            break
    began = time.monotonic()
    assert (await backend.acomplete(ask("Say hi"))).text == "Hi"
    assert time.monotonic() - began < 1.0


async def test_a_cancelled_call_stops_the_sequence(backend):
    await backend.acomplete(ask("Hi"))
    task = asyncio.create_task(backend.acomplete(ask("Hi", sampling=ENDLESS)))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    began = time.monotonic()
    assert (await backend.acomplete(ask("Say hi"))).text == "Hi"
    assert time.monotonic() - began < 1.0


async def test_the_event_loop_goes_on_meanwhile(backend):
    await backend.acomplete(ask("Hi"))
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.001)

    ticking = asyncio.create_task(tick())
    await backend.acomplete(ask(LONG, sampling=SamplingParams(max_tokens=100)))
    ticking.cancel()
    assert ticks > 10


def test_many_threads_and_loops_share_one_model(backend):
    drawn = [one_shape(seed) for seed in range(12)]
    answers = [None] * len(drawn)

    def work(number):
        image, _, shape = drawn[number]
        request = ask(f"What color is the {shape}?", image)
        answers[number] = (
            backend.complete(request) if number % 2 else asyncio.run(backend.acomplete(request))
        ).text

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(drawn))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [color for _, color, _ in drawn]
    assert get_engine_thread("tiny") is get_engine_thread("tiny")


REFUSED = {
    "a private URL": (ask("What?", Image(url="http://127.0.0.1:9/a.png")), ImageError, "127.0.0.1"),
    "a truncated image": (
        ask("What?", Image(SAMPLE_IMAGES["circle"].read_bytes()[:200], "image/png")),
        ImageError,
        r"Image 1, of message 0 \(user\).*cut off",
    ),
    "a long prompt": (ask("so " * 3000), ContextTooLongError, "2048"),
    "half a surrogate pair": (ask("Hi \ud83d"), UnsupportedInputError, "half a surrogate pair"),
    "a penalty": (
        ask("Hi", sampling=SamplingParams(frequency_penalty=1.0)),
        UnsupportedInputError,
        "frequency_penalty",
    ),
    "a schema that llguidance cannot express": (
        ask("Hi", response_format=ResponseFormat("json_schema", schema={"type": "string", "format": "tea"})),
        UnsupportedInputError,
        "schema of response_format: llguidance says `Unknown format: tea`",
    ),
    "the same of a forced tool": (
        ask(
            "Hi",
            tools=(Tool("f", "", {"not": {}}), Tool("g")),
            tool_choice=ToolChoice("required"),
        ),
        UnsupportedInputError,
        "parameters of the tool 'f'.*not",
    ),
    "a field of someone's own": (
        ask("Hi", extra_body={"logprobs": True}),
        UnsupportedInputError,
        "extra_body",
    ),
    "no such weights": (
        ChatRequest("/no/such/folder", (Message("user", (Text("Hi"),)),)),
        LocalModelError,
        "no model '/no/such/folder' on this machine",
    ),
    "weights of something else": (
        ChatRequest(".", (Message("user", (Text("Hi"),)),)),
        LocalModelError,
        "can't be loaded",
    ),
}


@pytest.mark.parametrize(("request_", "kind", "text"), REFUSED.values(), ids=REFUSED)
def test_refused_requests_raise_in_the_caller(backend, request_, kind, text):
    with pytest.raises(kind, match=text):
        backend.complete(request_)
    with pytest.raises(kind, match=text):
        list(backend.stream(request_))

    async def stream():
        return [event async for event in backend.astream(request_)]

    with pytest.raises(kind, match=text) as caught:
        asyncio.run(stream())
    assert caught.value.provider == "local"


@pytest.mark.parametrize("seed", [2**70 + 11, -(2**70)])
@pytest.mark.parametrize("way", WAYS)
def test_a_seed_of_any_size_samples_the_same_again(backend, way, seed):
    request = ask("Describe the image.", one_shape(3)[0], sampling=SamplingParams(temperature=3.0, seed=seed))
    reply = ask_in(backend, way, request)
    assert reply.text
    assert reply.text == ask_in(backend, "complete", request).text


def test_the_engine_thread_survives_an_error(backend):
    with pytest.raises(ImageError):
        backend.complete(REFUSED["a truncated image"][0])
    assert backend.complete(ask("Say hi")).text == "Hi"


def test_several_turns_and_a_system_message(backend):
    image = image_from_any(scene(("red", "circle", 1, 1)))
    messages = (
        Message("system", (Text("You are brief."),)),
        Message("user", (image, Text("What color is the circle?"))),
    )
    assert backend.complete(ChatRequest("tiny", messages)).text


@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_without_the_extra_every_call_says_what_to_install(missing):
    code = f"""
import sys
sys.modules[{missing!r}] = None  # as if it were not installed
from llama_vision.langchain import ChatLlamaVision
for _ in range(2):
    try:
        ChatLlamaVision(provider="local").invoke("Hi")
    except Exception as error:
        print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=60
    )
    first, second = done.stdout.splitlines()
    assert first == second
    assert first.startswith("MissingDependencyError")
    assert "llama-vision[local]" in first
    assert done.stderr == ""


@pytest.mark.parametrize("way", WAYS)
def test_a_deadline_ends_a_call_to_a_local_model(way):
    backend = create_backend(find_provider("local"), deadline=0.2)
    began = time.monotonic()
    with pytest.raises(RequestTimeoutError, match="deadline"):
        ask_in(backend, way, ask(LONG, sampling=ENDLESS))
    assert time.monotonic() - began < 2
