"""How fast the local model answers on this machine, beside transformers' own `generate` with the same weights.

`make bench` runs it. All figures come from this one run, with one thread, in interleaved rounds; each ratio is the
median of the rounds' ratios. `python benchmarks/local.py --json` prints the figures for a program.
"""

import argparse
import json
import os
import statistics
import time
from dataclasses import replace

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import PIL.Image
import torch
from transformers import AutoProcessor
from transformers.utils import logging

from llama_vision import ChatRequest, Message, Sampling, Text, image_from_any
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.loading import TINY, load
from llama_vision.backends.local.settings import LocalSettings

ROUNDS, TOKENS, BATCHES, QUESTIONS = 7, 64, (1, 4, 8, 16), 16
GOALS = {"16 together": 3.0}
WORDS = "Describe the image."


def picture(number):
    """Make a picture like no other."""
    return PIL.Image.new("RGB", (224, 224), (number % 256, 80, number // 256))


def ask(seen, tokens):
    message = Message("user", (image_from_any(seen), Text(WORDS)))
    return ChatRequest("tiny", (message,), sampling=Sampling(max_tokens=tokens, temperature=0))


def answer(engine, requests):
    """Answer requests together, and count the tokens."""
    answers = [engine.answer_to(request, lambda event: None, lambda: False) for request in requests]
    engine.admit(answers)
    while engine.working:
        engine.step()
    return sum(one.tokens for one in answers)


def generate(loaded, processor, pictures, tokens):
    """Let transformers do the same."""
    ours = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n<|image|>{}<|eot_id|>"
    text = ours.format(WORDS) + "<|start_header_id|>assistant<|end_header_id|>\n\n"
    given = processor(
        images=[[one] for one in pictures],
        text=[text] * len(pictures),
        add_special_tokens=False,
        return_tensors="pt",
    )
    with torch.inference_mode():
        found = loaded.network.generate(
            **given, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False
        )
    return (found.shape[1] - given["input_ids"].shape[1]) * len(pictures)


def seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def one_round(loaded, processor, number):
    """Measure everything once, with pictures nobody has seen."""
    engine = Engine(loaded, LocalSettings(max_batch_size=max(BATCHES)))
    fresh = iter(range(number * 1000, (number + 1) * 1000))
    found = {}
    for rows in BATCHES:
        pictures = [picture(next(fresh)) for _ in range(rows)]
        requests = [ask(one, TOKENS) for one in pictures]
        found[f"ours {rows}"] = rows * TOKENS / seconds(lambda r=requests: answer(engine, r))
        found[f"generate {rows}"] = (
            rows * TOKENS / seconds(lambda p=pictures: generate(loaded, processor, p, TOKENS))
        )
    question = [ask(picture(next(fresh)), 1)]
    found["new picture"] = seconds(lambda: answer(engine, question)) * 1e3
    found["known picture"] = seconds(lambda: answer(engine, question)) * 1e3
    several = [[ask(picture(next(fresh)), 16) for _ in range(QUESTIONS)] for _ in range(2)]
    together = seconds(lambda: answer(engine, several[0]))
    found["16 together"] = seconds(lambda: [answer(engine, [one]) for one in several[1]]) / together
    return found


def results():
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    processor = AutoProcessor.from_pretrained(TINY)
    # Every answer is as long as it may be: what is compared is speed, on the same number of tokens.
    loaded = replace(load("tiny"), end_ids=frozenset[int]())
    one_round(loaded, processor, 0)
    rounds = [one_round(loaded, processor, number) for number in range(1, ROUNDS + 1)]
    found = {figure: statistics.median(one[figure] for one in rounds) for figure in rounds[0]}
    for rows in BATCHES:
        ratios = [one[f"ours {rows}"] / one[f"generate {rows}"] for one in rounds]
        found[f"ratio {rows}"] = statistics.median(ratios)
    return found


def show(found):
    print(f"{TOKENS} tokens about a picture nobody has seen, tiny model, one thread")
    print(f"{'rows':<18}{'tokens/s':>12}{'generate':>12}{'ratio':>8}{'ms a step':>12}")
    for rows in BATCHES:
        ours, theirs = found[f"ours {rows}"], found[f"generate {rows}"]
        print(
            f"{rows:<18}{ours:>12.0f}{theirs:>12.0f}{found[f'ratio {rows}']:>8.1f}{rows / ours * 1e3:>12.2f}"
        )
    print(
        f"one token about a new picture {found['new picture']:.1f} ms, a known one {found['known picture']:.1f} ms"
    )
    goal = GOALS["16 together"]
    verdict = "" if found["16 together"] >= goal else "   MISSED"
    print(
        f"{QUESTIONS} questions together {found['16 together']:.1f} times as fast as one by one   goal {goal:g}{verdict}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    options = parser.parse_args()
    found = results()
    if options.json:
        print(json.dumps(found))
    else:
        show(found)


if __name__ == "__main__":
    main()
