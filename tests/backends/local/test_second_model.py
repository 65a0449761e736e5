"""Any Mllama checkpoint works: one with random weights and several tiles replies as transformers does."""

import base64
from concurrent.futures import ThreadPoolExecutor

import pytest

from llama_vision import ChatRequest, Message, SamplingParams, Text, image_from_any
from llama_vision.adaptation.message_order import reorder_messages
from llama_vision.backends import create_backend
from llama_vision.backends.local import LocalBackend, LocalSettings
from llama_vision.backends.local.model_loader import load_model
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision
from llama_vision.providers import find_provider
from tests.drawing import one_shape
from tests.hugging_face import generate
from tests.random_model import SIDE, write_random_model

SIZES = [
    (SIDE, SIDE),
    (2 * SIDE, SIDE),
    (SIDE, 3 * SIDE),
    (2 * SIDE, 2 * SIDE),
    (30, 20),
    (500, 100),
    (400, 390),
]
GREEDY = SamplingParams(max_tokens=24, temperature=0)
LOCAL = find_provider("local")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write_random_model(tmp_path_factory.mktemp("second") / "model"))


@pytest.fixture(scope="module")
def loaded(folder):
    return load_model(folder)


def image(number):
    return one_shape(number)[0].resize(SIZES[number % len(SIZES)])


def asked(folder, *parts, system=None):
    messages = (
        Message("user", tuple(Text(one) if isinstance(one, str) else image_from_any(one) for one in parts)),
    )
    if system is not None:
        messages = (Message("system", (Text(system),)), *messages)
    return ChatRequest(folder, messages, sampling=GREEDY)


def expected(loaded, request):
    """The reply of `generate` to the same images and order of messages."""
    tokens = generate(loaded, reorder_messages(LOCAL, request))
    return loaded.tokenizer.decode(tokens, skip_special_tokens=False)


def requests_of(folder):
    yield asked(folder, "Say hi")
    for number in range(len(SIZES)):
        yield asked(folder, image(number), "What is it?")
        yield asked(folder, image(number), image(number + 2), f"Which of {number}?", system="You are brief.")
        yield asked(folder, "First", image(number), "then", image(number + 1), image(number + 3), "and?")


@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.slow
def test_its_replies_are_those_of_generate(folder, loaded, batch_size):
    backend = LocalBackend(LOCAL, local=LocalSettings(max_batch_size=batch_size))
    requests = list(requests_of(folder))
    with ThreadPoolExecutor(batch_size) as threads:
        answers = [reply.text for reply in threads.map(backend.complete, requests)]
    assert answers == [expected(loaded, request) for request in requests]
    assert len(set(answers)) > len(requests) * 2 / 3


def block(part):
    if isinstance(part, str):
        return {"type": "text", "text": part}
    data = base64.b64encode(image_from_any(part).data).decode()
    return {"type": "image", "base64": data, "mime_type": "image/png"}


@pytest.mark.slow
def test_a_system_prompt_and_several_images_through_langchain(folder, loaded):
    content = [image(3), image(4), "Which is red?"]
    model = ChatLlamaVision(provider="local", model=folder, temperature=0, max_tokens=24)
    reply = model.invoke([("system", "You are brief."), ("user", [block(part) for part in content])])
    assert reply.text == expected(loaded, asked(folder, *content, system="You are brief."))
    assert reply.usage_metadata["output_tokens"] > 0


@pytest.mark.slow
def test_it_is_another_model_than_the_tiny_one(folder):
    tiny = LlamaVision(provider="local", temperature=0).complete("Say hi").text
    other = LlamaVision(provider="local", model=folder, temperature=0, max_tokens=8).complete("Say hi").text
    assert tiny == "Hi" != other


def test_images_of_different_tiles_make_a_difference(folder):
    backend = create_backend(LOCAL)
    whole = one_shape(2)[0].resize((2 * SIDE, 2 * SIDE))
    replies = {
        backend.complete(asked(folder, whole.resize(size), "What is it?")).text
        for size in [(SIDE, SIDE), whole.size]
    }
    assert len(replies) == 2
