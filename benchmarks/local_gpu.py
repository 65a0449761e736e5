"""How close the local model comes to what a GPU's memory allows: the 11B's shape with random weights, beside `generate`.

`python -m benchmarks.local_gpu` takes minutes on one GPU of 80 GB or more; nothing is downloaded. `--tiny` does the same
with a small shape on any machine in seconds, which shows that it runs and nothing else. `--json` prints the figures for a
program.

The floor is the time in which the bytes that a step needs can be read: the weights of the layers that take part, and what
is remembered of words and images. How fast memory is read is measured in the same run.
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

from benchmarks.random_weights import FULL, TINY_MODEL_PATH, loaded_by_chance
from llama_vision import ChatRequest, Message, SamplingParams, Text, image_from_any
from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.image_processor import parse_image_processor_config, to_pixel_values
from llama_vision.backends.local.model_loader import default_device, load_model
from llama_vision.backends.local.quantization import check_quantization
from llama_vision.core.errors import LocalModelError

GOALS = {"batch 1": 180.0, "batch 32": 2500.0}
WORDS = "Describe the image in as many words as you can find, and say what stands where."


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(device, work):
    synchronize(device)
    began = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - began


def requests(shape, rows, *, first):
    """Ask about images of four tiles, each of another colour."""
    side = 2 * shape.vision["image_size"]
    colors = [(40 + number, 80, first % 256) for number in range(rows)]
    images = [image_from_any(PIL.Image.new("RGB", (side, side), color)) for color in colors]
    sampling = SamplingParams(max_tokens=2048, temperature=0)
    return [
        ChatRequest("11b", (Message("user", (image, Text(WORDS))),), sampling=sampling) for image in images
    ]


def bytes_of_step(loaded, answers):
    """Count what has to be read for a token of each answer."""
    text, config = loaded.model.model.language_model, loaded.model.config.text_config
    parts = [*text.layers, text.norm, loaded.model.lm_head]
    weights = sum(one.nbytes for part in parts for one in [*part.parameters(), *part.buffers()])
    crossing = len(config.cross_attention_layers)
    words = sum(len(answer.prompt.ids) + answer.tokens for answer in answers)
    columns = sum(
        glimpse.image.seen.columns for answer in answers for glimpse in answer.prompt.output_image_spans
    )
    numbers = 2 * config.num_key_value_heads * (config.hidden_size // config.num_attention_heads)
    remembered = words * (config.num_hidden_layers - crossing) + columns * crossing
    return weights + remembered * numbers * loaded.model.dtype.itemsize


def bytes_a_second(shape, device):
    """Measure how fast memory is read and written, as a step would."""
    source = torch.zeros(shape.copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    return 10 * 2 * shape.copied / seconds(device, lambda: [target.copy_(source) for _ in range(10)])


def ours(loaded, shape, rows, speed, first):
    """Measure how fast answers are written once all of them are."""
    engine = Engine(loaded, LocalSettings(max_batch_size=rows, max_model_len=4096))
    answers = [
        engine.answer_to(one, lambda event: None, lambda: False) for one in requests(shape, rows, first=first)
    ]

    def begin():
        engine.add_sequences(answers)
        while min(answer.num_output_tokens for answer in answers) < 1:
            engine.step()

    beginning = seconds(loaded.device, begin)
    for _ in range(shape.warm):
        engine.step()
    before = sum(answer.num_output_tokens for answer in answers)
    took = seconds(loaded.device, lambda: [engine.step() for _ in range(shape.tokens)])
    written = sum(answer.num_output_tokens for answer in answers) - before
    if written != rows * shape.tokens:
        raise LocalModelError(f"{written} tokens were written, and not {rows} x {shape.tokens}.")
    floor = bytes_of_step(loaded, answers) / speed
    engine.abort_all(LocalModelError("It is measured."))
    return {
        "tokens/s": written / took,
        "ms a step": took / shape.tokens * 1e3,
        "floor ms": floor * 1e3,
        "share of the floor": floor / (took / shape.tokens),
        "first words ms": beginning * 1e3,
    }


def theirs(loaded, shape, rows):
    """Measure the same with transformers' `generate`: the difference of a long and a short answer is the writing."""
    engine = Engine(loaded, LocalSettings(max_batch_size=rows))
    prompts = [
        engine.answer_to(one, lambda event: None, lambda: False).prompt
        for one in requests(shape, rows, first=200)
    ]
    device, network = loaded.device, loaded.model
    tiles = [glimpse.image.tiles for prompt in prompts for glimpse in prompt.image_spans]
    given = to_pixel_values(
        tiles, parse_image_processor_config(loaded.image_processor_config), device, network.dtype
    )
    ids = torch.tensor([prompt.token_ids for prompt in prompts], device=device)
    start = prompts[0].image_spans[0].start
    seen = torch.zeros(*ids.shape, 1, 4, dtype=torch.long, device=device)
    seen[:, start:] = 1
    given |= {"input_ids": ids, "attention_mask": torch.ones_like(ids), "cross_attention_mask": seen}

    def write(tokens):
        with torch.inference_mode():
            network.generate(**given, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)

    write(shape.warm)
    few, many = (seconds(device, lambda n=n: write(n)) for n in (shape.warm, shape.warm + shape.tokens))
    if many <= few:
        raise LocalModelError(f"{shape.tokens} tokens more took no longer.")
    return {"tokens/s": rows * shape.tokens / (many - few), "first words ms": few * 1e3}


def agreement(device):
    """Count how many answers of the tiny model are the same here and on the processor, sixteen at a time."""
    said = []
    for place in ("cpu", str(device)):
        loaded = load_model("tiny", LocalSettings(device=place, dtype="float32"))
        engine = Engine(loaded, LocalSettings(max_batch_size=16))
        heard = [[] for _ in range(32)]
        for first in (0, 16):
            group = []
            for number in range(first, first + 16):
                image = PIL.Image.new("RGB", (90 + number, 96), (number * 8, 255 - number * 8, 90))
                parts = (
                    (image_from_any(image), Text("Describe the image.")) if number % 3 else (Text("Say hi"),)
                )
                asked = ChatRequest(
                    "tiny", (Message("user", parts),), sampling=SamplingParams(max_tokens=32, temperature=0)
                )
                group.append(engine.answer_to(asked, heard[number].append, lambda: False))
            engine.add_sequences(group)
            while engine.num_running:
                engine.step()
        said.append(["".join(getattr(event, "text", "") for event in events) for events in heard])
    return {"equal": sum(one == other for one, other in zip(*said, strict=True)), "of": len(said[0])}


def attempt(work):
    """Go on where one measurement fails: such a machine is not always there."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is printed in place of the figure
        return {"failed": f"{type(error).__name__}: {error}"[:300]}
    finally:
        gc.collect()  # an engine and its recorded steps know each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def measured(shape, device, quantization, speed, show):
    """Measure one kind of weights."""
    found = {}
    kind = quantization or "bfloat16"
    refused = attempt(lambda: check_quantization(quantization, device))
    if refused:
        show(kind, refused)
        return {kind: refused}
    loaded = loaded_by_chance(shape, device, quantization)
    for rows in shape.batches:
        name = f"{kind}, batch {rows}"
        found[name] = attempt(lambda r=rows: ours(loaded, shape, r, speed, first=r))
        show(name, found[name])
        if quantization is None and rows in (shape.batches[0], shape.batches[-1]):
            name = f"generate, batch {rows}"
            found[name] = attempt(lambda r=rows: theirs(loaded, shape, r))
            show(name, found[name])
    return found


def results(shape, device, show):
    speed = bytes_a_second(shape, device)
    found = {"device": name_of(device), "memory GB/s": speed / 1e9}
    show("memory", {"GB/s": speed / 1e9})
    found["agreement"] = attempt(lambda: agreement(device))
    show("answers as on the processor", found["agreement"])
    for quantization in (None, "int8", "fp8"):
        found |= measured(shape, device, quantization, speed, show)
    return found


def name_of(device):
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device} of this machine"


def show(name, figures):
    """Print at once, so that nothing is lost where time runs out."""
    shown = (
        f"{label} {value:,.2f}" if isinstance(value, float) else f"{label} {value}"
        for label, value in figures.items()
    )
    goal = next((goal for end, goal in GOALS.items() if name == f"bfloat16, {end}"), None)
    verdict = "" if goal is None else f"   goal {goal:g} tokens/s on an H200"
    print(f"{name:<30}{'   '.join(shown)}{verdict}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--tiny", action="store_true", help="a small shape on the processor, to see that it runs"
    )
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    options = parser.parse_args()
    logging.set_verbosity_error()
    device = torch.device("cpu") if options.tiny else default_device()
    if device.type != "cuda" and not options.tiny:
        parser.exit(1, "This measures an NVIDIA GPU, and there is none here. --tiny shows that it runs.\n")
    found = results(
        TINY_MODEL_PATH if options.tiny else FULL, device, (lambda *_: None) if options.json else show
    )
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
