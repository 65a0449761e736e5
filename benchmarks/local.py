"""Throughput and latency of the local model on this machine, beside transformers' own `generate` with the same weights.

`make bench` runs it. All figures come from this one run, with one thread, in interleaved rounds; each ratio is the
median of the rounds' ratios. `python benchmarks/local.py --json` prints the figures for a program, `--together` and
`--masks` measure one thing only, in seconds of the processor, so that other programs don't matter; `--requests N`
and `--soak SECONDS` show that it is stable.
"""

import argparse
import itertools
import json
import os
import statistics
import threading
import time
from dataclasses import replace

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import PIL.Image
import torch
from local_endurance import run_many, soak
from transformers import AutoProcessor, MllamaForConditionalGeneration
from transformers.utils import logging

from llama_vision import ChatRequest, Message, ResponseFormat, SamplingParams, Text, image_from_any
from llama_vision.backends.local import LocalBackend
from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.model_loader import TINY_MODEL_PATH, load_model
from llama_vision.backends.local.sequence import Sequence
from llama_vision.core.events import TextDelta
from llama_vision.providers import find_provider

ROUNDS, TOKENS, BATCH_SIZES, NUM_TOGETHER = 7, 64, (1, 4, 8, 16), 16
GUIDED_TOKENS = 150
GOALS = {"16 together": 3.5, "mask": 0.1}
QUESTION = "Describe the image."
THREADS, UNDER_LOAD = 8, 12
SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "count": {"type": "integer", "minimum": 0, "maximum": 999},
        },
        "required": ["name", "count"],
        "additionalProperties": False,
    },
    "minItems": 50,
}
"""Nothing that fits it is short, so guided decoding goes on for long."""


def image(number):
    """A unique image."""
    return PIL.Image.new("RGB", (224, 224), (number % 256, 80, number // 256))


def ask(image, max_tokens, **options):
    message = Message("user", (image_from_any(image), Text(QUESTION)))
    return ChatRequest(
        "tiny", (message,), sampling=SamplingParams(max_tokens=max_tokens, temperature=0), **options
    )


def endless(text, max_tokens, seed):
    """A request whose reply hardly ever ends before `max_tokens`."""
    sampling = SamplingParams(max_tokens=max_tokens, temperature=50.0, top_k=1000, seed=seed)
    return ChatRequest("tiny", (Message("user", (Text(text),)),), sampling=sampling)


def add(engine, requests):
    seqs = [engine.input_processor.process(Sequence(request, lambda output: None)) for request in requests]
    engine.add_sequences(seqs)
    return seqs


def run(engine, requests):
    """Run requests in one batch."""
    add(engine, requests)
    while engine.num_running:
        engine.step()


def generate(theirs, processor, pil_images, tokens):
    """Let transformers do the same."""
    template = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n<|image|>{}<|eot_id|>"
    text = template.format(QUESTION) + "<|start_header_id|>assistant<|end_header_id|>\n\n"
    inputs = processor(
        images=[[one] for one in pil_images],
        text=[text] * len(pil_images),
        add_special_tokens=False,
        return_tensors="pt",
    )
    with torch.inference_mode():
        theirs.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)


def seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def one_round(loaded, theirs, processor, number):
    """Measure everything once, with images that are in no cache."""
    engine = Engine(loaded, LocalSettings(max_batch_size=max(BATCH_SIZES)))
    fresh = iter(range(number * 1000, (number + 1) * 1000))
    found = {}
    for batch_size in BATCH_SIZES:
        images = [image(next(fresh)) for _ in range(batch_size)]
        requests = [ask(one, TOKENS) for one in images]
        found[f"ours {batch_size}"] = batch_size * TOKENS / seconds(lambda r=requests: run(engine, r))
        found[f"generate {batch_size}"] = (
            batch_size * TOKENS / seconds(lambda p=images: generate(theirs, processor, p, TOKENS))
        )
    question = [ask(image(next(fresh)), 1)]
    found["new image"] = seconds(lambda: run(engine, question)) * 1e3
    found["cached image"] = seconds(lambda: run(engine, question)) * 1e3
    found["16 together"] = together(loaded, number)
    return found


def together(loaded, number):
    """Throughput of one batch, as a multiple of one request after another."""
    engine = Engine(loaded, LocalSettings(max_batch_size=NUM_TOGETHER))
    fresh = iter(range(number * 1000 + 500, (number + 1) * 1000))
    several = [[ask(image(next(fresh)), 16) for _ in range(NUM_TOGETHER)] for _ in range(2)]
    batched = processor_seconds(lambda: run(engine, several[0]))
    return processor_seconds(lambda: [run(engine, [one]) for one in several[1]]) / batched


def processor_seconds(work):
    began = time.process_time()
    work()
    return time.process_time() - began


def grammar_masks(loaded, batch_size):
    """What guided decoding adds to the time of a token, of which the grammar forces some: of replies of equal length."""
    form = ResponseFormat("json_schema", schema=SCHEMA)
    runs = [Guided(loaded, batch_size, options) for options in ({}, {"response_format": form})]
    while unfinished := [run for run in runs if run.num_tokens < GUIDED_TOKENS]:
        for run in unfinished:  # alternating, so that both see the same load of the machine
            run.step()
    unguided, guided = (run.seconds_per_token for run in runs)
    return guided / unguided - 1


class Guided:
    """A batch of requests with or without a schema, and the processor time of its decode steps."""

    def __init__(self, loaded, batch_size, options):
        self.engine, self.seconds = Engine(loaded, LocalSettings(max_batch_size=batch_size)), 0.0
        sampling = SamplingParams(max_tokens=1000, temperature=0, repetition_penalty=1.0)  # no prompt lookup
        requests = [replace(ask(image(row), 1, **options), sampling=sampling) for row in range(batch_size)]
        self.seqs = add(self.engine, requests)
        self.engine.step()
        self.num_before = self.total

    @property
    def total(self):
        return sum(seq.num_output_tokens for seq in self.seqs)

    @property
    def num_tokens(self):
        """Of the shortest reply."""
        return min(seq.num_output_tokens for seq in self.seqs)

    @property
    def seconds_per_token(self):
        return self.seconds / (self.total - self.num_before)

    def step(self):
        self.seconds += processor_seconds(self.engine.step)


def in_threads():
    """Tokens per second of CPU time of eight threads at once."""
    backend, tokens = LocalBackend(find_provider("local")), []

    def work(seed):
        for number in range(3):
            reply = backend.complete(endless(f"Say {seed} {number}", TOKENS, seed * 10 + number))
            tokens.append(reply.usage.output_tokens)

    def run_all():
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    backend.complete(endless("Hi", 2, 1))
    spent = processor_seconds(run_all)
    return sum(tokens) / spent


def under_load():
    """Time to first token and the longest inter-token latency, beside eight streams and long prompts."""
    backend, stopped, latencies = LocalBackend(find_provider("local")), threading.Event(), []

    def stream(seed):
        while not stopped.is_set():
            deltas = (one for one in backend.stream(endless(f"Say {seed}", 300, seed)) if is_text(one))
            moments = [time.perf_counter() for _ in deltas]
            latencies.extend(after - before for before, after in itertools.pairwise(moments))

    def prefill():
        while not stopped.is_set():
            backend.complete(endless(f"{time.perf_counter()} " + "and so on " * 300, 2, 1))

    threads = [threading.Thread(target=stream, args=(seed,)) for seed in range(THREADS)]
    threads.append(threading.Thread(target=prefill))
    for thread in threads:
        thread.start()
    waits = []
    for number in range(UNDER_LOAD):
        time.sleep(0.2)
        events = backend.stream(ask(image(number), 4))
        waits.append(seconds(lambda events=events: next(events)))
        events.close()
    stopped.set()
    for thread in threads:
        thread.join()
    return {
        "first token": statistics.median(waits) * 1e3,
        "latest first token": max(waits) * 1e3,
        "longest inter-token latency": max(latencies) * 1e3,
    }


def is_text(event):
    return isinstance(event, TextDelta)


def results():
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    processor = AutoProcessor.from_pretrained(TINY_MODEL_PATH)
    theirs = MllamaForConditionalGeneration.from_pretrained(TINY_MODEL_PATH, dtype=torch.float32).eval()
    # No EOS token: what is compared is speed, on the same number of tokens.
    loaded = replace(load_model("tiny"), eos_token_ids=frozenset[int]())
    one_round(loaded, theirs, processor, 0)
    rounds = [one_round(loaded, theirs, processor, number) for number in range(1, ROUNDS + 1)]
    found = {figure: statistics.median(one[figure] for one in rounds) for figure in rounds[0]}
    for batch_size in BATCH_SIZES:
        ratios = [one[f"ours {batch_size}"] / one[f"generate {batch_size}"] for one in rounds]
        found[f"ratio {batch_size}"] = statistics.median(ratios)
    for batch_size in (1, 16):
        found[f"mask {batch_size}"] = grammar_masks(loaded, batch_size)
    found["threads"] = in_threads()
    return found | under_load()


def show(found):
    print(f"{TOKENS} tokens about an image that is in no cache, tiny model, one thread")
    print(f"{'batch size':<18}{'tokens/s':>12}{'generate':>12}{'ratio':>8}{'ms a step':>12}")
    for batch_size in BATCH_SIZES:
        ours, theirs = found[f"ours {batch_size}"], found[f"generate {batch_size}"]
        print(
            f"{batch_size:<18}{ours:>12.0f}{theirs:>12.0f}{found[f'ratio {batch_size}']:>8.1f}"
            f"{batch_size / ours * 1e3:>12.2f}"
        )
    print(
        f"one token about a new image {found['new image']:.1f} ms, a cached one {found['cached image']:.1f} ms"
    )
    goal = GOALS["16 together"]
    verdict = "" if found["16 together"] >= goal else "   MISSED"
    print(
        f"{NUM_TOGETHER} requests in one batch {found['16 together']:.1f} times as fast as one by one   goal {goal:g}{verdict}"
    )
    show_masks(found)
    print(f"{THREADS} threads {found['threads']:.0f} tokens per second of CPU time")
    print(
        f"beside {THREADS} streams and long prompts: first token after {found['first token']:.0f} ms, "
        f"{found['latest first token']:.0f} at the latest; longest inter-token latency {found['longest inter-token latency']:.0f} ms"
    )


def show_masks(found):
    for batch_size in (1, 16):
        verdict = "" if found[f"mask {batch_size}"] < GOALS["mask"] else "   MISSED"
        print(
            f"guided decoding of {batch_size} adds {found[f'mask {batch_size}']:.1%} to a token   goal under "
            f"{GOALS['mask']:.0%}{verdict}"
        )


def single_measurement(options):
    if options.requests:
        return run_many(options.requests)
    if options.soak:
        return soak(options.soak)
    loaded = replace(load_model("tiny"), eos_token_ids=frozenset[int]())
    if options.together:
        return {
            "16 together": statistics.median(together(loaded, number) for number in range(3)),
        }
    return {f"mask {batch_size}": grammar_masks(loaded, batch_size) for batch_size in (1, 16)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    parser.add_argument(
        "--together", action="store_true", help="only 16 requests, in one batch and one by one"
    )
    parser.add_argument("--masks", action="store_true", help="only what guided decoding costs")
    parser.add_argument("--requests", type=int, help="run so many, and watch the memory")
    parser.add_argument(
        "--soak",
        type=float,
        help="run all kinds of requests for so many seconds, some cancelled, some failing",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    alone = options.requests or options.soak or options.together or options.masks
    found = single_measurement(options) if alone else results()
    if options.json:
        print(json.dumps(found))
    elif not alone:
        show(found)
    elif options.masks:
        show_masks(found)
    else:
        for name, figure in found.items():
            print(f"{name:<14}{figure if not isinstance(figure, float) else round(figure, 1)}")


if __name__ == "__main__":
    main()
