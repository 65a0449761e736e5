"""What CUDA graphs sample is what the sampler samples from the same logits, here without the capture."""

import random

import pytest
import torch

from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.kernels import TORCH_KERNELS
from llama_vision.backends.local.model_loader import load_model
from llama_vision.backends.local.sampler import Sampler, sample, tokens_or_errors
from llama_vision.core.errors import LocalModelError
from llama_vision.core.request import SamplingParams
from tests.eager_graphs import EagerGraphs
from tests.local_engine import run
from tests.mixed_requests import ask

CPU = torch.device("cpu")
VOCAB_SIZE = 300


def random_parameters(chance):
    return SamplingParams(
        temperature=chance.choice([0, 1e-7, 0.6, 2.5]),
        top_k=chance.choice([None, 0, 1, 5, 10**30]),
        top_p=chance.choice([None, 0.0, 0.4, 0.9, 1.0]),
        min_p=chance.choice([None, 0.0, 0.1]),
        seed=chance.randrange(100),
    )


def runner_of(logits, max_num_seqs=6):
    """A runner whose forward pass looks logits up by token id; padding has those of the token 0."""
    return EagerGraphs(lambda inputs, has_images: logits[inputs[:, 0]], max_num_seqs, (0, 0, 0), CPU)


@pytest.mark.parametrize("seed", range(12))
def test_a_batch_is_sampled_as_without_graphs(seed):
    chance, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    dtype = chance.choice([torch.float32, torch.bfloat16])
    logits = (torch.randn(20, VOCAB_SIZE, generator=generator) * 3).to(dtype)
    parameters = [random_parameters(chance) for _ in range(20)]
    samplers, others = ([Sampler(one, None, None, (), CPU) for one in parameters] for _ in range(2))
    runner = runner_of(logits)
    for _ in range(8):
        rows = chance.sample(range(20), chance.randint(1, 6))
        output = runner.run([(row, 0, 0) for row in rows], [samplers[row] for row in rows], has_images=False)
        assert torch.equal(output.logits, logits[rows])
        found = tokens_or_errors(output.token_ids, output.failures)
        assert found == sample(logits[rows], [others[row] for row in rows])


class BrokenSampler(Sampler):
    def exponential_noise(self, noise):
        raise RuntimeError("no noise")


def test_rows_that_fail_do_so_alone():
    logits = torch.zeros(4, VOCAB_SIZE)
    logits[:, 7] = 50.0
    logits[1, 3] = float("nan")
    sampling = SamplingParams(temperature=1.0, seed=1)
    samplers = [kind(sampling, None, None, (), CPU) for kind in (Sampler, Sampler, BrokenSampler, Sampler)]
    output = runner_of(logits).run([(row, 0, 0) for row in range(4)], samplers, has_images=False)
    first, not_finite, broken, last = tokens_or_errors(output.token_ids, output.failures)
    assert (first, last) == (7, 7)
    assert isinstance(not_finite, LocalModelError)
    assert str(broken) == "no noise"


@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 1.0, "seed": 3}], ids=str)
def test_a_repetition_penalty_is_left_to_the_host(sampling):
    penalized = Sampler(SamplingParams(repetition_penalty=1.3, **sampling), None, None, (7,), CPU)
    greedy = Sampler(SamplingParams(temperature=0), None, None, (), CPU)
    logits = torch.eye(2, VOCAB_SIZE)
    output = runner_of(logits).run([(0, 0, 0), (1, 0, 0)], [penalized, greedy], has_images=False)
    assert output.token_ids is None
    assert torch.equal(output.logits, logits)


def test_replies_of_any_sampling_are_those_without_graphs():
    model = load_model("tiny")
    parameters = [
        {"temperature": 0},
        {"temperature": 1.5, "seed": 1},
        {"temperature": 1.0, "top_p": 0.8, "seed": 2},
        {"temperature": 2.0, "top_k": 9, "min_p": 0.05, "seed": 3},
        {"temperature": 1.0, "repetition_penalty": 1.2, "seed": 4},
    ]
    requests = [ask("Say hi", sampling=SamplingParams(max_tokens=8, **one)) for one in parameters]
    engine = Engine(model, LocalSettings(max_batch_size=4))
    engine._cuda_graphs = engine._cuda_graph_runner(TORCH_KERNELS, EagerGraphs)
    replies = run(engine, requests)
    assert replies == run(Engine(model, LocalSettings(max_batch_size=4)), requests)
    assert engine._cuda_graphs is not None
    assert engine._cuda_graphs.num_graphs > len(engine._cuda_graphs._graphs)
