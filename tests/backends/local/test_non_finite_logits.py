"""Logits that are NaN or infinite end their sequence with an error that says so, and no other one."""

import pytest
import torch

from llama_vision import ChatRequest, Message, SamplingParams, Text
from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.model_loader import load_model
from llama_vision.backends.local.sampler import Sampler, sample
from llama_vision.core.errors import LocalModelError
from llama_vision.core.reply import Reply
from tests.local_engine import add, run, run_one


@pytest.fixture(scope="module")
def loaded():
    return load_model("tiny")


def ask(text, **sampling):
    return ChatRequest(
        "tiny", (Message("user", (Text(text),)),), sampling=SamplingParams(max_tokens=20, **sampling)
    )


@pytest.fixture
def overflowing(loaded):
    """Hidden states of the token `Tokyo` overflow, as in float16."""
    token_id = loaded.tokenizer.encode("Repeat: Tokyo").ids[-1]

    def overflow(_, args, output):
        return output.masked_fill((args[0] == token_id)[..., None], float("nan"))

    hook = loaded.model.model.language_model.embed_tokens.register_forward_hook(overflow)
    yield
    hook.remove()


@pytest.mark.parametrize(
    "sampling", [{"temperature": 0}, {"temperature": 1.0, "seed": 3}], ids=["greedy", "sampled"]
)
def test_only_the_sequence_that_overflows_fails(loaded, overflowing, sampling):
    engine = Engine(loaded, LocalSettings(max_batch_size=3, prefix_cache_bytes=0))
    healthy = [ask("Repeat: Paris London Berlin Rome", **sampling), ask("Say hi", **sampling)]
    alone = [run_one(Engine(loaded, LocalSettings(max_batch_size=1)), request).text for request in healthy]
    outputs = [
        add(engine, request)[1] for request in (healthy[0], ask("Repeat: Tokyo", **sampling), healthy[1])
    ]
    while engine.num_running:
        engine.step()
    assert isinstance(outputs[1][-1], LocalModelError)
    assert "NaN or infinite" in str(outputs[1][-1])
    assert "bfloat16" in str(outputs[1][-1])
    assert [Reply.from_events(outputs[n]).text for n in (0, 2)] == alone


def test_what_comes_after_it_in_the_same_memory_is_right(loaded, overflowing):
    cities = "Paris London Berlin Rome Oslo Cairo Madrid Paris London Berlin Rome Oslo Cairo Madrid"
    engine = Engine(loaded, LocalSettings(max_batch_size=2, prefix_cache_bytes=0))
    requests = [
        ask("Say hi"),
        ask(f"Repeat: {cities}"),
    ]  # the mask hides the longer one's positions from the shorter one
    expected = [
        run_one(Engine(loaded, LocalSettings(max_batch_size=1)), request).text for request in requests
    ]
    for _ in range(2):
        _, outputs = add(engine, ask(f"Repeat: {cities} Tokyo"))
        while engine.num_running:
            engine.step()
        assert isinstance(outputs[-1], LocalModelError)
        assert [reply.text for reply in run(engine, requests)] == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "sampling", [SamplingParams(temperature=0), SamplingParams(temperature=1.0, top_p=0.5)]
)
def test_one_such_logit_is_enough(value, sampling):
    logits = torch.zeros(2, 50)
    logits[:, 7] = 9.0
    logits[0, 3] = value
    samplers = [Sampler(sampling, None, None, [1], torch.device("cpu")) for _ in range(2)]
    failed, token_id = sample(logits, samplers)
    assert isinstance(failed, LocalModelError)
    assert token_id == 7


@pytest.mark.parametrize("temperature", [1e-5, 1e-6, 1e-38, 1e-45, 5e-324])
def test_a_temperature_near_zero_is_greedy(loaded, temperature):
    greedy = run_one(Engine(loaded, LocalSettings()), ask("Repeat: Paris London", temperature=0))
    assert (
        run_one(Engine(loaded, LocalSettings()), ask("Repeat: Paris London", temperature=temperature)).text
        == greedy.text
    )


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("penalty", [1e-38, 5e-324, 100])
def test_an_extreme_repetition_penalty_gives_tokens_and_not_nan(temperature, penalty):
    sampling = SamplingParams(temperature=temperature, repetition_penalty=penalty, seed=1)
    logits = torch.linspace(-5, 5, 50)[None]
    (token_id,) = sample(logits, [Sampler(sampling, None, None, [49, 40], torch.device("cpu"))])
    assert token_id == 49 if penalty < 1 else token_id not in {49, 40}
