"""The local engine on a GPU, each figure beside its floor, transformers' `generate` and the goal: the 11B's shape, random weights.

`python -m benchmarks.local_gpu` takes at most four minutes on one GPU of 80 GB or more: what there is no time left for is
left out, and said so. Nothing is downloaded. `--tiny` does the same with a small shape on any machine in seconds, which
shows that it runs and nothing else. The last line has all figures as JSON.

The floor of a decode step is the time to read the bytes that it needs: the weights of the layers that take part, and the
KV cache. That of an image or a prompt is the time of its matrix products, without attention. Memory bandwidth and
arithmetic are measured in the same run. Decode steps alone are timed in an engine; everything else goes the users' way,
through `LocalBackend`.
"""

import argparse
import gc
import json
import os
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import PIL.Image
import torch
from transformers.utils import logging

from benchmarks.backend_requests import QUESTION, Requests, ask, backend_of
from benchmarks.random_weights import FULL, TINY, random_model
from llama_vision import ChatRequest, Message, SamplingParams, Text, image_from_any
from llama_vision.backends.local.config import LocalSettings, Quantization
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.image_processor import parse_image_processor_config, to_pixel_values
from llama_vision.backends.local.model_loader import default_device, load_model
from llama_vision.backends.local.quantization import check_quantization
from llama_vision.backends.local.sequence import Sequence
from llama_vision.core.errors import LocalModelError
from tests.hugging_face import transformers_model

MAX_SECONDS = 240.0
GOALS = {
    "bfloat16, batch 1": "share of the floor >= 0.85",
    "bfloat16, batch 32": "share of the floor >= 0.85",
    "int8, batch 1": "tokens/s >= 220",
    "int4, batch 1": "tokens/s >= 280",
    "fp8, batch 32": "tokens/s >= 4,300",
    "8 new images together": "ms an image <= 40",
    "prompt of 8000 tokens": "tokens/s >= 30,000",
    "64 images x 128 tokens, 32 slots, second time": "tokens/s >= 1,260",
    "requests that come and go": "CUDA graphs <= 8",
}
"""For an H100 of 80 GB."""


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(device, work):
    synchronize(device)
    began = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - began


def prepare_requests(engine, shape, batch_size, *, first):
    """Prepare sequences about images of four tiles, each of another colour."""
    side = 2 * shape.vision["image_size"]
    colors = [(40 + number, 80, first % 256) for number in range(batch_size)]
    images = [image_from_any(PIL.Image.new("RGB", (side, side), color)) for color in colors]
    sampling = SamplingParams(max_tokens=2048, temperature=0)
    return [
        prepare(engine, ChatRequest("11b", (Message("user", (image, Text(QUESTION))),), sampling=sampling))
        for image in images
    ]


def prepare(engine, request, on_output=lambda output: None):
    return engine.input_processor.process(Sequence(request, on_output))


def bytes_of_step(loaded, sequences):
    """Bytes of weights and KV cache that a decode step reads."""
    text, config = loaded.model.model.language_model, loaded.model.config.text_config
    parts = [*text.layers, text.norm, loaded.model.lm_head]
    weights = sum(one.nbytes for part in parts for one in [*part.parameters(), *part.buffers()])
    num_cross = len(config.cross_attention_layers)
    tokens = sum(len(one.prompt.token_ids) + one.num_output_tokens for one in sequences)
    images = [image for one in sequences for image in one.running_block_table.output_images]
    vision_tokens = sum(image.num_vision_tokens for image in images)
    kv_size = 2 * config.num_key_value_heads * (config.hidden_size // config.num_attention_heads)
    cached = tokens * (config.num_hidden_layers - num_cross) + vision_tokens * num_cross
    return weights + cached * kv_size * loaded.model.dtype.itemsize


def memory_bandwidth(shape, device):
    """Bytes per second of a copy, read and written."""
    source = torch.zeros(shape.copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    return 10 * 2 * shape.copied / seconds(device, lambda: [target.copy_(source) for _ in range(10)])


def ours(loaded, shape, batch_size, bandwidth, first):
    """Decode speed of a batch after prefill."""
    engine = Engine(loaded, LocalSettings(max_batch_size=batch_size, max_model_len=4096))
    sequences = prepare_requests(engine, shape, batch_size, first=first)

    def prefill():
        engine.add_sequences(sequences)
        while min(one.num_output_tokens for one in sequences) < 1:
            engine.step()

    time_to_first_token = seconds(loaded.device, prefill)
    for _ in range(shape.warmup):
        engine.step()
    before = sum(one.num_output_tokens for one in sequences)
    took = seconds(loaded.device, lambda: [engine.step() for _ in range(shape.tokens)])
    generated = sum(one.num_output_tokens for one in sequences) - before
    if generated < batch_size * shape.tokens:  # on a CPU there may be more, by prompt lookup
        raise LocalModelError(f"{generated} tokens were generated, and not {batch_size} x {shape.tokens}.")
    floor = bytes_of_step(loaded, sequences) / bandwidth
    engine.abort_all(LocalModelError("It is measured."))
    return {
        "tokens/s": generated / took,
        "ms a step": took / shape.tokens * 1e3,
        "floor ms": floor * 1e3,
        "share of the floor": floor / (took / shape.tokens),
        "first token ms": time_to_first_token * 1e3,
    }


def generate(loaded, prompts, tokens):
    """Let transformers generate so many tokens after each of some prompts of one length, of which all or none have an image."""
    device, model = loaded.device, transformers_model(loaded)
    ids = torch.tensor([prompt.token_ids for prompt in prompts], device=device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if spans := [span for prompt in prompts for span in prompt.image_spans]:
        config = parse_image_processor_config(loaded.image_processor_config)
        visible = torch.zeros(*ids.shape, 1, 4, dtype=torch.long, device=device)
        visible[:, spans[0].start :] = 1
        tiles = [span.image.tiles for span in spans]
        inputs |= to_pixel_values(tiles, config, device, model.dtype) | {"cross_attention_mask": visible}
    with torch.inference_mode():
        model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)


def theirs(loaded, shape, batch_size):
    """The same with transformers' `generate`: the time of a long reply less that of a short one."""
    engine = Engine(loaded, LocalSettings(max_batch_size=batch_size, max_model_len=4096))
    prompts = [one.prompt for one in prepare_requests(engine, shape, batch_size, first=200)]
    generate(loaded, prompts, shape.warmup)
    short, long = (
        seconds(loaded.device, lambda n=n: generate(loaded, prompts, n))
        for n in (shape.warmup, shape.warmup + shape.tokens)
    )
    if long <= short:
        raise LocalModelError(f"{shape.tokens} tokens more took no longer.")
    return {"tokens/s": batch_size * shape.tokens / (long - short), "short reply ms": short * 1e3}


def their_images(loaded, shape):
    """The time of eight images and one token about each."""
    engine = Engine(loaded, LocalSettings(max_batch_size=8, max_model_len=4096))
    prompts = [one.prompt for one in prepare_requests(engine, shape, 8, first=210)]
    return {"ms an image": seconds(loaded.device, lambda: generate(loaded, prompts, 1)) / 8 * 1e3}


def their_prompt(loaded, shape):
    """The speed of a long prompt and one token after it."""
    engine = Engine(loaded, LocalSettings(max_batch_size=1))
    prompt = prepare(engine, ask("so " * shape.prompt_tokens, max_tokens=1)).prompt
    took = seconds(loaded.device, lambda: generate(loaded, [prompt], 1))
    return {"tokens/s": len(prompt.token_ids) / took}


def agreement(device):
    """How many of the tiny model's replies are the same here and on the CPU, sixteen at a time."""
    replies = []
    for name in ("cpu", str(device)):
        loaded = load_model("tiny", LocalSettings(device=name, dtype="float32"))
        engine = Engine(loaded, LocalSettings(max_batch_size=16))
        outputs = [[] for _ in range(32)]
        for first in (0, 16):
            group = []
            for number in range(first, first + 16):
                image = PIL.Image.new("RGB", (90 + number, 96), (number * 8, 255 - number * 8, 90))
                parts = (
                    (image_from_any(image), Text("Describe the image.")) if number % 3 else (Text("Say hi"),)
                )
                request = ChatRequest(
                    "tiny", (Message("user", parts),), sampling=SamplingParams(max_tokens=32, temperature=0)
                )
                group.append(prepare(engine, request, outputs[number].append))
            engine.add_sequences(group)
            while engine.num_running:
                engine.step()
        replies.append(["".join(getattr(event, "text", "") for event in events) for events in outputs])
    return {"equal": sum(one == other for one, other in zip(*replies, strict=True)), "of": len(replies[0])}


def floors(loaded, shape, bandwidth, arithmetic):
    """Seconds that an image of four tiles, a prompt token, and a decode step of a full batch take at least."""
    vision, text = loaded.model.model.vision_model, loaded.model.model.language_model
    config = loaded.model.config
    layers = [layer for layer in text.layers if hasattr(layer, "self_attn")]
    token_flops = 2 * sum(one.numel() for layer in layers for one in layer.parameters())
    tokens = vision.num_patches * config.vision_config.max_num_tiles
    transformers = (vision.transformer, vision.global_transformer)
    image_flops = 2 * tokens * sum(one.numel() for part in transformers for one in part.parameters())
    weights = sum(one.nbytes for part in (*text.layers, loaded.model.lm_head) for one in part.parameters())
    kv_size = 2 * config.text_config.num_key_value_heads * head_dim_of(config) * loaded.model.dtype.itemsize
    cached = shape.slots * tokens * len(config.text_config.cross_attention_layers) * kv_size
    return {
        "image": image_flops / arithmetic,
        "prompt token": token_flops / arithmetic,
        "step": (weights + cached) / bandwidth,
    }


def head_dim_of(config):
    return config.text_config.hidden_size // config.text_config.num_attention_heads


def arithmetic_speed(shape, device):
    """Floating point operations per second of a product of matrices in bfloat16."""
    one = torch.randn(shape.matrix, shape.matrix, device=device, dtype=torch.bfloat16)
    one @ one
    return 10 * 2 * shape.matrix**3 / seconds(device, lambda: [one @ one for _ in range(10)])


class Figures:
    """What was measured so far, by name; each figure is printed at once, so that nothing is lost where time runs out."""

    def __init__(self, goals, max_seconds, *, quiet):
        self.goals, self.max_seconds, self.quiet = goals, max_seconds, quiet
        self.began, self.found = time.monotonic(), {}

    def measure(self, name, work):
        """Go on where one measurement fails: such a machine is not always there. Returns whether it succeeded."""
        if time.monotonic() > self.began + self.max_seconds:
            self.add(name, {"left out": f"{self.max_seconds:g} seconds were over"})
            return False
        try:
            figures = work()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is printed in place of the figure
            self.add(name, {"failed": f"{type(error).__name__}: {error}"[:300]})
            return False
        finally:
            gc.collect()  # an engine and its CUDA graphs refer to each other
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        if figures is not None:
            self.add(name, figures)
        return True

    def add(self, name, figures):
        if name in self.goals:
            figures = {**figures, "goal": self.goals[name]}
        self.found[name] = figures
        if not self.quiet:
            texts = (
                f"{label} {value:,.2f}" if isinstance(value, float) else f"{label} {value}"
                for label, value in figures.items()
            )
            print(f"{name:<50}{'   '.join(texts)}", flush=True)


def measure(shape, device, quantization, speeds, figures):
    """Measure one kind of weights."""
    kind = quantization or "bfloat16"
    if not figures.measure(kind, lambda: check_quantization(quantization, device)):
        return
    loaded = random_model(shape, device, quantization)
    if quantization is None:
        measure_backend(loaded, shape, speeds, figures)
    for size in shape.batch_sizes:
        figures.measure(
            f"{kind}, batch {size}", lambda n=size: ours(loaded, shape, n, speeds["memory"], first=n)
        )
    if quantization is None:
        for size in (shape.batch_sizes[0], shape.batch_sizes[-1]):
            figures.measure(f"generate, batch {size}", lambda n=size: theirs(loaded, shape, n))
        figures.measure("generate, 8 new images together", lambda: their_images(loaded, shape))
        figures.measure(
            f"generate, prompt of {shape.prompt_tokens} tokens", lambda: their_prompt(loaded, shape)
        )


def measure_backend(loaded, shape, speeds, figures):
    """Measure requests through the backend."""
    with backend_of(loaded, shape) as backend:
        least = floors(loaded, shape, speeds["memory"], speeds["arithmetic"])
        for name, work in Requests(backend, shape, least).all().items():
            figures.measure(name, work)


def measure_all(shape, device, figures):
    speeds = {"memory": memory_bandwidth(shape, device), "arithmetic": arithmetic_speed(shape, device)}
    figures.add("speeds", {"GB/s": speeds["memory"] / 1e9, "TFLOP/s": speeds["arithmetic"] / 1e12})
    figures.measure("replies as on the CPU", lambda: agreement(device))
    for kind in (None, *(kind for kind in Quantization.__args__ if kind != "auto")):
        figures.measure(
            f"weights of {kind or 'bfloat16'}",
            lambda kind=kind: measure(shape, device, kind, speeds, figures),
        )


def name_of(device):
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device} of this machine"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a small shape on the CPU, to see that it runs")
    parser.add_argument("--json", action="store_true", help="print figures for a program, and nothing else")
    options = parser.parse_args()
    logging.set_verbosity_error()
    device = torch.device("cpu") if options.tiny else default_device()
    if device.type != "cuda" and not options.tiny:
        parser.exit(1, "This measures an NVIDIA GPU, and there is none here. --tiny shows that it runs.\n")
    figures = (
        Figures({}, float("inf"), quiet=options.json)
        if options.tiny
        else Figures(GOALS, MAX_SECONDS, quiet=options.json)
    )
    figures.add("device", {"name": name_of(device)})
    measure_all(TINY if options.tiny else FULL, device, figures)
    print(json.dumps(figures.found))


if __name__ == "__main__":
    main()
