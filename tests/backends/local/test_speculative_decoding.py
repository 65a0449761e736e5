"""Drafts, which the grammar forces or which stood before, save forward passes and never change a reply."""

import random
from dataclasses import replace

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
from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.guided_decoding import GrammarMatcher
from llama_vision.backends.local.model_loader import load_model
from llama_vision.backends.local.speculative_decoding import PromptLookup
from llama_vision.core.errors import LocalModelError
from llama_vision.core.reply import Reply
from tests.drawing import one_shape
from tests.local_engine import add, counted_tokens, run, run_one

WEATHER = Tool("weather", "Tell the weather", {"properties": {"city": {"type": "string", "maxLength": 9}}})
FORM = ResponseFormat(
    "json_schema",
    schema={
        "type": "object",
        "properties": {
            "color": {"type": "string", "maxLength": 8},
            "shape": {"enum": ["circle", "square"]},
            "position of the shape": {"enum": ["left", "right"]},
        },
        "required": ["color", "shape", "position of the shape"],
        "additionalProperties": False,
    },
)
CITIES = "Repeat: " + "Paris London Berlin Rome " * 3


class EngineWithoutDrafts(Engine):
    """One token a step."""

    def _propose_drafts(self, seqs):
        return {}


@pytest.fixture(scope="module")
def loaded():
    return load_model("tiny")


def ask(text, *images, **options):
    parts = (*(image_from_any(image) for image in images), Text(text))
    options.setdefault("sampling", SamplingParams(max_tokens=48, temperature=0))
    return ChatRequest("tiny", (Message("user", parts),), **options)


def random_request(chance):
    """Guided and not, greedy and random, with stop strings and penalties, cut off anywhere."""
    image = one_shape(chance.randrange(50))[0]
    sampling = SamplingParams(
        max_tokens=chance.choice([1, 2, 5, 9, 48]),
        temperature=chance.choice([0, 0, 0, 1.5]),
        seed=chance.randrange(100),
        repetition_penalty=chance.choice([None, None, 1.3]),
    )
    words = " ".join(chance.choice(["Paris", "London", "Rome"]) for _ in range(chance.randint(1, 12)))
    request = chance.choice(
        [
            ask("What color is it?", image, response_format=FORM),
            ask("What is the weather for Rome?", tools=(WEATHER,), tool_choice=ToolChoice("required")),
            ask("What is the weather for Rome?", image, tools=(WEATHER,)),
            ask(f"Repeat: {words} {words}"),
            ask("Describe the image. Describe the image.", image, one_shape(3)[0]),
        ]
    )
    stop = chance.choice([(), (), ("on",), ("square",)])
    return replace(request, sampling=sampling, stop=stop)


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 24))]
)
def test_replies_are_those_of_one_token_a_step(loaded, seed):
    chance = random.Random(seed)
    requests = [random_request(chance) for _ in range(8)]
    # A KV cache in which sequences are preempted.
    settings = LocalSettings(
        max_batch_size=chance.choice([1, 3, 8]), kv_cache_bytes=60 * 49152, max_model_len=300
    )
    replies = run(Engine(loaded, settings), requests, lambda: chance.choice([0, 1, 3]))
    expected = run(EngineWithoutDrafts(loaded, settings), requests)
    for found, wanted in zip(replies, expected, strict=True):
        assert (found.text, found.tool_calls, found.finish_reason) == (
            wanted.text,
            wanted.tool_calls,
            wanted.finish_reason,
        )
        assert found.usage.output_tokens == wanted.usage.output_tokens


@pytest.mark.parametrize(
    "request_",
    [
        ask("What color is it?", one_shape(1)[0], response_format=FORM),
        ask("What is the weather for Rome?", tools=(WEATHER,), tool_choice=ToolChoice("required")),
        ask(CITIES),
    ],
    ids=["schema", "tool", "repetition"],
)
def test_several_tokens_take_one_forward_pass(loaded, request_):
    passes = []
    for engine in (Engine(loaded, LocalSettings()), EngineWithoutDrafts(loaded, LocalSettings())):
        with counted_tokens(loaded) as counts:
            reply = run_one(engine, request_)
        assert len(counts) <= reply.usage.output_tokens
        passes.append(len(counts))
    assert passes[0] < 0.7 * passes[1]


def test_prompt_lookup_proposes_what_followed_the_same_tokens():
    lookup = PromptLookup()
    assert lookup.propose([1, 2, 3, 4, 5, 6], [9]) == []
    assert lookup.propose([1, 2, 3, 4, 5, 6], [9, 1, 2]) == []
    assert lookup.propose([1, 2, 3, 4, 5, 6], [9, 1, 2, 3]) == [4, 5, 6, 9, 1, 2, 3]
    assert lookup.propose([1, 2, 3, 4, 5, 6], [9, 1, 2, 3, 7, 1, 2, 3]) == [7, 1, 2, 3]  # the last one


def test_prompt_lookup_proposes_what_a_search_finds():
    chance = random.Random(4)
    for _ in range(50):
        tokens = [chance.randrange(3) for _ in range(chance.randint(1, 60))]
        num_prompt, lookup = chance.randint(1, len(tokens)), PromptLookup()
        end = num_prompt
        while end <= len(tokens):
            found = lookup.propose(tokens[:num_prompt], tokens[num_prompt:end])
            known = tokens[:end]
            places = [at for at in range(3, end) if end > 3 and known[at - 3 : at] == known[-3:]]
            assert found == (known[places[-1] :][:8] if places else [])
            end += chance.randint(1, 4)


def test_prompt_lookup_that_fails_pauses_longer_each_time():
    lookup, tokens, paused = PromptLookup(), [1, 2, 3, 4, 5, 6, 1, 2, 3], []
    for _ in range(3):
        lookup.record(0)
        count = 0
        while not lookup.propose(tokens, []):
            count += 1
        paused.append(count)
    lookup.record(8)
    assert lookup.propose(tokens, []) == [4, 5, 6, 1, 2, 3]
    assert paused == [1, 3, 7]


def test_a_grammar_that_fails_while_tokens_are_proposed_fails_alone(loaded, monkeypatch):
    def panic(self):
        raise RuntimeError("llguidance is out of fuel")

    monkeypatch.setattr(GrammarMatcher, "forced_token_ids", panic)
    engine = Engine(loaded, LocalSettings())
    _, guided = add(engine, ask("What color is it?", response_format=FORM))
    _, other = add(engine, ask("Say hi"))
    while engine.num_running:
        engine.step()
    assert isinstance(guided[-1], LocalModelError)
    assert "out of fuel" in str(guided[-1])
    assert Reply.from_events(other).text == "Hi"
