"""How fast the local model answers on this machine, beside transformers' own `generate` with the same weights.

`make bench` runs it. All figures come from this one run, with one thread, in interleaved rounds; each ratio is the
median of the rounds' ratios. `python benchmarks/local.py --json` prints the figures for a program, `--together` and
`--masks` measure one thing only, in seconds of the processor, so that others on the machine don't count; `--requests N`
and `--soak SECONDS` show that it lasts.
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
from local_endurance import many, soak
from transformers import AutoProcessor
from transformers.utils import logging

from llama_vision import ChatRequest, Message, ResponseFormat, SamplingParams, Text, image_from_any
from llama_vision.backends.local import LocalBackend
from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.model_loader import TINY_MODEL_PATH, load_model
from llama_vision.core.events import TextDelta
from llama_vision.providers import find_provider

ROUNDS, TOKENS, BATCHES, QUESTIONS = 7, 64, (1, 4, 8, 16), 16
GOALS = {"16 together": 3.0, "mask": 0.1}
WORDS = "Describe the image."
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
"""Nothing that fits it is short, so that many rows are kept to it for long."""


def image(number):
    """Make an image like no other."""
    return PIL.Image.new("RGB", (224, 224), (number % 256, 80, number // 256))


def ask(seen, tokens, **options):
    message = Message("user", (image_from_any(seen), Text(WORDS)))
    return ChatRequest(
        "tiny", (message,), sampling=SamplingParams(max_tokens=tokens, temperature=0), **options
    )


def babble(words, tokens, seed):
    """Ask for an answer that hardly ever ends by itself."""
    sampling = SamplingParams(max_tokens=tokens, temperature=50.0, top_k=1000, seed=seed)
    return ChatRequest("tiny", (Message("user", (Text(words),)),), sampling=sampling)


def answer(engine, requests):
    """Answer requests together, and count the tokens."""
    answers = [engine.answer_to(request, lambda event: None, lambda: False) for request in requests]
    engine.add_sequences(answers)
    while engine.working:
        engine.step()
    return sum(one.tokens for one in answers)


def generate(loaded, processor, pil_images, tokens):
    """Let transformers do the same."""
    ours = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n<|image|>{}<|eot_id|>"
    text = ours.format(WORDS) + "<|start_header_id|>assistant<|end_header_id|>\n\n"
    given = processor(
        images=[[one] for one in pil_images],
        text=[text] * len(pil_images),
        add_special_tokens=False,
        return_tensors="pt",
    )
    with torch.inference_mode():
        found = loaded.model.generate(**given, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
    return (found.shape[1] - given["input_ids"].shape[1]) * len(pil_images)


def seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def one_round(loaded, processor, number):
    """Measure everything once, with images nobody has seen."""
    engine = Engine(loaded, LocalSettings(max_batch_size=max(BATCHES)))
    fresh = iter(range(number * 1000, (number + 1) * 1000))
    found = {}
    for rows in BATCHES:
        images = [image(next(fresh)) for _ in range(rows)]
        requests = [ask(one, TOKENS) for one in images]
        found[f"ours {rows}"] = rows * TOKENS / seconds(lambda r=requests: answer(engine, r))
        found[f"generate {rows}"] = (
            rows * TOKENS / seconds(lambda p=images: generate(loaded, processor, p, TOKENS))
        )
    question = [ask(image(next(fresh)), 1)]
    found["new picture"] = seconds(lambda: answer(engine, question)) * 1e3
    found["known picture"] = seconds(lambda: answer(engine, question)) * 1e3
    found["16 together"] = together(loaded, number)
    return found


def together(loaded, number):
    """Measure how many times as fast questions are answered together as one after another."""
    engine = Engine(loaded, LocalSettings(max_batch_size=QUESTIONS))
    fresh = iter(range(number * 1000 + 500, (number + 1) * 1000))
    several = [[ask(image(next(fresh)), 16) for _ in range(QUESTIONS)] for _ in range(2)]
    quick = processor_seconds(lambda: answer(engine, several[0]))
    return processor_seconds(lambda: [answer(engine, [one]) for one in several[1]]) / quick


def processor_seconds(work):
    began = time.process_time()
    work()
    return time.process_time() - began


def masks(loaded, rows):
    """Measure a step of rows that are kept to a schema beside one of as many that are free: what the difference costs."""
    form = ResponseFormat("json_schema", schema=SCHEMA)
    engines = []
    for options in ({}, {"response_format": form}):
        engine = Engine(loaded, LocalSettings(max_batch_size=rows))
        requests = [ask(image(row), 80, **options) for row in range(rows)]
        engine.add_sequences([engine.answer_to(one, lambda event: None, lambda: False) for one in requests])
        engine.step()
        engines.append(engine)
    # A step of one, a step of the other: so that both meet the machine in the same mood.
    spent = [[processor_seconds(engine.step) for engine in engines] for _ in range(70)]
    free, kept = (statistics.fmean(sorted(one)[5:-5]) for one in zip(*spent, strict=True))
    return kept / free - 1


def in_threads():
    """Measure tokens a second of eight threads that ask at once."""
    backend, tokens = LocalBackend(find_provider("local")), []

    def work(seed):
        for number in range(3):
            reply = backend.complete(babble(f"Say {seed} {number}", TOKENS, seed * 10 + number))
            tokens.append(reply.usage.output_tokens)

    def all_at_once():
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    backend.complete(babble("Hi", 2, 1))
    spent = processor_seconds(all_at_once)
    return sum(tokens) / spent


def under_load():
    """Measure when answers begin, and the longest pause in others, beside eight streams and long prompts."""
    backend, over, pauses = LocalBackend(find_provider("local")), threading.Event(), []

    def stream(seed):
        while not over.is_set():
            pieces = (one for one in backend.stream(babble(f"Say {seed}", 300, seed)) if is_text(one))
            moments = [time.perf_counter() for _ in pieces]
            pauses.extend(after - before for before, after in itertools.pairwise(moments))

    def read():
        while not over.is_set():
            backend.complete(babble(f"{time.perf_counter()} " + "and so on " * 300, 2, 1))

    threads = [threading.Thread(target=stream, args=(seed,)) for seed in range(THREADS)]
    threads.append(threading.Thread(target=read))
    for thread in threads:
        thread.start()
    waits = []
    for number in range(UNDER_LOAD):
        time.sleep(0.2)
        events = backend.stream(ask(image(number), 4))
        waits.append(seconds(lambda events=events: next(events)))
        events.close()
    over.set()
    for thread in threads:
        thread.join()
    return {
        "first token": statistics.median(waits) * 1e3,
        "latest first token": max(waits) * 1e3,
        "longest pause": max(pauses) * 1e3,
    }


def is_text(event):
    return isinstance(event, TextDelta)


def results():
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    processor = AutoProcessor.from_pretrained(TINY_MODEL_PATH)
    # Every answer is as long as it may be: what is compared is speed, on the same number of tokens.
    loaded = replace(load_model("tiny"), end_ids=frozenset[int]())
    one_round(loaded, processor, 0)
    rounds = [one_round(loaded, processor, number) for number in range(1, ROUNDS + 1)]
    found = {figure: statistics.median(one[figure] for one in rounds) for figure in rounds[0]}
    for rows in BATCHES:
        ratios = [one[f"ours {rows}"] / one[f"generate {rows}"] for one in rounds]
        found[f"ratio {rows}"] = statistics.median(ratios)
    for rows in (1, 16):
        found[f"mask {rows}"] = masks(loaded, rows)
    found["threads"] = in_threads()
    return found | under_load()


def show(found):
    print(f"{TOKENS} tokens about a picture nobody has seen, tiny model, one thread")
    print(f"{'rows':<18}{'tokens/s':>12}{'generate':>12}{'ratio':>8}{'ms a step':>12}")
    for rows in BATCHES:
        ours, theirs = found[f"ours {rows}"], found[f"generate {rows}"]
        print(
            f"{rows:<18}{ours:>12.0f}{theirs:>12.0f}{found[f'ratio {rows}']:>8.1f}{rows / ours * 1e3:>12.2f}"
        )
    print(
        f"one token about a new picture {found['new image']:.1f} ms, a known one {found['known image']:.1f} ms"
    )
    goal = GOALS["16 together"]
    verdict = "" if found["16 together"] >= goal else "   MISSED"
    print(
        f"{QUESTIONS} questions together {found['16 together']:.1f} times as fast as one by one   goal {goal:g}{verdict}"
    )
    show_masks(found)
    print(f"{THREADS} threads {found['threads']:.0f} tokens a second of the processor")
    print(
        f"beside {THREADS} streams and long prompts: first token after {found['first token']:.0f} ms, "
        f"{found['latest first token']:.0f} at the latest; longest pause in a stream {found['longest pause']:.0f} ms"
    )


def show_masks(found):
    for rows in (1, 16):
        verdict = "" if found[f"mask {rows}"] < GOALS["mask"] else "   MISSED"
        print(
            f"masks of {rows} rows kept to a schema add {found[f'mask {rows}']:.1%} to a step   goal under "
            f"{GOALS['mask']:.0%}{verdict}"
        )


def one_thing(options):
    """Do what was asked for instead of everything."""
    if options.requests:
        return many(options.requests)
    if options.soak:
        return soak(options.soak)
    loaded = replace(load_model("tiny"), end_ids=frozenset[int]())
    if options.together:
        return {
            "16 together": statistics.median(together(loaded, number) for number in range(3)),
        }
    return {f"mask {rows}": masks(loaded, rows) for rows in (1, 16)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    parser.add_argument("--together", action="store_true", help="only 16 questions, together and one by one")
    parser.add_argument("--masks", action="store_true", help="only what keeping to a schema costs")
    parser.add_argument("--requests", type=int, help="answer so many, and look at the memory")
    parser.add_argument(
        "--soak", type=float, help="answer a crowd for so many seconds, some of which leave or fail"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    alone = options.requests or options.soak or options.together or options.masks
    found = one_thing(options) if alone else results()
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
