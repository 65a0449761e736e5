"""Decode speed on a GPU as a share of its memory bandwidth: the 11B's shape with random weights, beside `generate`.

`python -m benchmarks.local_gpu` takes minutes on one GPU of 80 GB or more; nothing is downloaded. `--tiny` does the same
with a small shape on any machine in seconds, which shows that it runs and nothing else. `--json` prints the figures for a
program.

The floor is the time to read the bytes that a decode step needs: the weights of the layers that take part, and the KV
cache. The memory bandwidth is measured in the same run.
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

from benchmarks.random_weights import FULL, TINY, random_model
from llama_vision import ChatRequest, Message, SamplingParams, Text, image_from_any
from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.image_processor import parse_image_processor_config, to_pixel_values
from llama_vision.backends.local.model_loader import default_device, load_model
from llama_vision.backends.local.quantization import check_quantization
from llama_vision.backends.local.sequence import Sequence
from llama_vision.core.errors import LocalModelError

GOALS = {"batch 1": 180.0, "batch 32": 2500.0}
QUESTION = "Describe the image in as many words as you can find, and say what stands where."


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
    if generated != batch_size * shape.tokens:
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


def theirs(loaded, shape, batch_size):
    """The same with transformers' `generate`: the time of a long reply less that of a short one."""
    engine = Engine(loaded, LocalSettings(max_batch_size=batch_size))
    prompts = [one.prompt for one in prepare_requests(engine, shape, batch_size, first=200)]
    device, model = loaded.device, loaded.model
    tiles = [span.image.tiles for prompt in prompts for span in prompt.image_spans]
    inputs = to_pixel_values(
        tiles, parse_image_processor_config(loaded.image_processor_config), device, model.dtype
    )
    ids = torch.tensor([prompt.token_ids for prompt in prompts], device=device)
    start = prompts[0].image_spans[0].start
    visible = torch.zeros(*ids.shape, 1, 4, dtype=torch.long, device=device)
    visible[:, start:] = 1
    inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids), "cross_attention_mask": visible}

    def generate(tokens):
        with torch.inference_mode():
            model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)

    generate(shape.warmup)
    short, long = (
        seconds(device, lambda n=n: generate(n)) for n in (shape.warmup, shape.warmup + shape.tokens)
    )
    if long <= short:
        raise LocalModelError(f"{shape.tokens} tokens more took no longer.")
    return {"tokens/s": batch_size * shape.tokens / (long - short), "short reply ms": short * 1e3}


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


def attempt(work):
    """Go on where one measurement fails: such a machine is not always there."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is printed in place of the figure
        return {"failed": f"{type(error).__name__}: {error}"[:300]}
    finally:
        gc.collect()  # an engine and its CUDA graphs refer to each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def measure(shape, device, quantization, bandwidth, show):
    """Measure one kind of weights."""
    found = {}
    kind = quantization or "bfloat16"
    refused = attempt(lambda: check_quantization(quantization, device))
    if refused:
        show(kind, refused)
        return {kind: refused}
    loaded = random_model(shape, device, quantization)
    for batch_size in shape.batch_sizes:
        name = f"{kind}, batch {batch_size}"
        found[name] = attempt(lambda n=batch_size: ours(loaded, shape, n, bandwidth, first=n))
        show(name, found[name])
        if quantization is None and batch_size in (shape.batch_sizes[0], shape.batch_sizes[-1]):
            name = f"generate, batch {batch_size}"
            found[name] = attempt(lambda n=batch_size: theirs(loaded, shape, n))
            show(name, found[name])
    return found


def results(shape, device, show):
    bandwidth = memory_bandwidth(shape, device)
    found = {"device": name_of(device), "memory GB/s": bandwidth / 1e9}
    show("memory", {"GB/s": bandwidth / 1e9})
    found["agreement"] = attempt(lambda: agreement(device))
    show("replies as on the CPU", found["agreement"])
    for quantization in (None, "int8", "fp8"):
        found |= measure(shape, device, quantization, bandwidth, show)
    return found


def name_of(device):
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device} of this machine"


def show(name, figures):
    """Print at once, so that nothing is lost where time runs out."""
    texts = (
        f"{label} {value:,.2f}" if isinstance(value, float) else f"{label} {value}"
        for label, value in figures.items()
    )
    goal = next((goal for end, goal in GOALS.items() if name == f"bfloat16, {end}"), None)
    verdict = "" if goal is None else f"   goal {goal:g} tokens/s on an H200"
    print(f"{name:<30}{'   '.join(texts)}{verdict}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a small shape on the CPU, to see that it runs")
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    options = parser.parse_args()
    logging.set_verbosity_error()
    device = torch.device("cpu") if options.tiny else default_device()
    if device.type != "cuda" and not options.tiny:
        parser.exit(1, "This measures an NVIDIA GPU, and there is none here. --tiny shows that it runs.\n")
    found = results(TINY if options.tiny else FULL, device, (lambda *_: None) if options.json else show)
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
