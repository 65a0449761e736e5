"""The local model's image processor beside transformers' own, on one thread.

`make bench` runs it. All figures come from this one run, in interleaved rounds, and are CPU time; each ratio
is the median of the rounds' ratios. `python benchmarks/pixels.py --json` prints the figures for a program.
"""

import argparse
import json
import statistics
import time

import numpy as np
import PIL.Image
import torch
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

from llama_vision.backends.local.image_processor import (
    parse_image_processor_config,
    resize_and_tile,
    to_pixel_values,
)

ROUNDS = 9
SIZES = [(560, 560), (1120, 1120), (3000, 2000)]
OPTIONS = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "max_image_tiles": 4,
    "size": {"height": 560, "width": 560},
}
CONFIG = parse_image_processor_config(OPTIONS)
GOALS = {"ratio": 1.5, "difference": 2e-7}


def milliseconds(work):
    began = time.process_time()
    result = work()
    return (time.process_time() - began) * 1e3, result


def to_model(tiles):
    return to_pixel_values([tiles], CONFIG, torch.device("cpu"), torch.float32)["pixel_values"]


def one_size(size):
    processor = MllamaImageProcessorPil(**OPTIONS)
    levels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = PIL.Image.fromarray(levels)
    rounds = []
    for _ in range(ROUNDS):
        tiling, tiles = milliseconds(lambda: resize_and_tile(image, CONFIG))
        normalizing, ours = milliseconds(lambda t=tiles: to_model(t))
        theirs, made = milliseconds(lambda: processor(images=[[image]], return_tensors="pt"))
        rounds.append((tiling, normalizing, theirs))
    difference = (made["pixel_values"] - ours).abs().max().item()
    figures = ("resize and tile ms", "normalize on this CPU ms", "transformers ms")
    found = {
        name: statistics.median(row) for name, row in zip(figures, zip(*rounds, strict=True), strict=True)
    }
    ratio = statistics.median(theirs / tiling for tiling, _, theirs in rounds)
    sent = tiles.canvas.nbytes / 1e6, made["pixel_values"].nbytes / 1e6
    return found | {"ratio": ratio, "difference": difference, "sent MB": sent[0], "transformers MB": sent[1]}


def results():
    torch.set_num_threads(1)
    return {f"{wide} x {high}": one_size((wide, high)) for wide, high in SIZES}


def show(found):
    print("An image resized and tiled for the model, one thread; it is normalized on the device")
    print(
        f"{'':<14}{'tiled ms':>12}{'transformers':>14}{'ratio':>8}{'MB sent':>9}{'transformers':>14}"
        f"{'normalized':>12}{'difference':>12}"
    )
    for size, one in found.items():
        missed = one["ratio"] < GOALS["ratio"] or one["difference"] > GOALS["difference"]
        print(
            f"{size:<14}{one['resize and tile ms']:>12.1f}{one['transformers ms']:>14.1f}{one['ratio']:>8.1f}"
            f"{one['sent MB']:>9.1f}{one['transformers MB']:>14.1f}{one['normalize on this CPU ms']:>12.1f}"
            f"{one['difference']:>12.0e}{'   MISSED' if missed else ''}"
        )
    print(f"goal: a ratio of {GOALS['ratio']:g}, a difference of {GOALS['difference']:g} or less")


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
