"""Cost of preparing a photograph for the model, beside one line of Pillow.

`make bench` runs it. All figures come from this one run, in interleaved rounds; each ratio is the median of the rounds'
ratios. `python benchmarks/images.py --json` prints the figures for a program.
"""

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import PIL.Image
from PIL import ImageChops, ImageFilter

from llama_vision.core.messages import Image
from llama_vision.images.constraints import ImageConstraints
from llama_vision.images.prepare import prepare_image, prepare_images
from llama_vision.images.settings import EncodingOptions

ROUNDS, REPEATS, QUALITY = 9, 50, 85
WIDTH, HEIGHT = 4000, 3000
GOALS = {"speed": 3.0, "bytes": 8.0, "repeat_ms": 1.0, "memory_mb": 80.0}
AT_LEAST = {"speed", "bytes"}
RULES, OPTIONS = ImageConstraints(), EncodingOptions(quality=QUALITY)


def photograph():
    """Draw noise at three scales, and encode it as a camera does."""
    size = WIDTH, HEIGHT

    def clouds(grain, strength):
        small = PIL.Image.effect_noise((WIDTH // grain, HEIGHT // grain), strength)
        return small.resize(size, PIL.Image.Resampling.BICUBIC)

    coarse = PIL.Image.merge("RGB", [clouds(40, 90) for _ in range(3)])
    middle = PIL.Image.merge("RGB", [clouds(8, 60)] * 3)
    grain = PIL.Image.effect_noise(size, 22).filter(ImageFilter.GaussianBlur(0.7))
    image = ImageChops.add(ImageChops.add(coarse, middle, 2), PIL.Image.merge("RGB", [grain] * 3), 2)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def one_line(data, size):
    """The baseline without this package."""
    buffer = io.BytesIO()
    with PIL.Image.open(io.BytesIO(data)) as image:
        image.convert("RGB").resize(size).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def repeat_ms(image):
    """Measure a cache hit: an equal copy of the bytes each time."""
    prepare_images([image], RULES, OPTIONS)
    times = []
    for _ in range(REPEATS):
        copy = replace(image, data=bytes(bytearray(image.data)))
        times.append(seconds(lambda c=copy: prepare_images([c], RULES, OPTIONS)))
    return statistics.median(times) * 1000


def peak_mb(data, work):
    """Measure the peak memory of a fresh process that has the file's bytes and does some work on them."""
    code = (
        "import pathlib, resource, sys; import PIL.Image, PIL.JpegImagePlugin\n"
        "data = pathlib.Path(sys.argv[1]).read_bytes()\n"
        f"{work}\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == 'darwin' else 1e3))"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "photo.jpg")
        path.write_bytes(data)
        command = [sys.executable, "-c", BETWEEN, "-c", code, str(path)]
        run = subprocess.run(command, capture_output=True, check=True)
    return float(run.stdout)


# On Linux a process inherits its parent's peak memory: a small process has to stand between.
BETWEEN = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, *sys.argv[1:]]).returncode)"
OURS = """
from llama_vision.core.messages import Image
from llama_vision.images.prepare import prepare_image
from llama_vision.images.constraints import ImageConstraints
prepare_image(Image(data=data, media_type="image/jpeg"), ImageConstraints())
"""
ONE_LINE = """
import io
PIL.Image.open(io.BytesIO(data)).convert("RGB").resize((1120, 840)).save(io.BytesIO(), "JPEG", quality=85)
"""


def results():
    data = photograph()
    image = Image(data=data, media_type="image/jpeg")
    ours = prepare_image(image, RULES, OPTIONS)
    with PIL.Image.open(io.BytesIO(ours.data)) as sent:
        size = sent.size
    theirs = one_line(data, size)
    rounds = [
        (seconds(lambda: prepare_image(image, RULES, OPTIONS)), seconds(lambda: one_line(data, size)))
        for _ in range(ROUNDS)
    ]
    nothing = peak_mb(data, "")
    return {
        "size": size,
        "kb": {"original": len(data) / 1e3, "ours": len(ours.data) / 1e3, "one line": len(theirs) / 1e3},
        "ms": {
            "ours": statistics.median(first for first, _ in rounds) * 1e3,
            "one line": statistics.median(second for _, second in rounds) * 1e3,
        },
        "peak_mb": {"ours": peak_mb(data, OURS) - nothing, "one line": peak_mb(data, ONE_LINE) - nothing},
        "speed": statistics.median(second / first for first, second in rounds),
        "bytes": len(data) / len(ours.data),
        "repeat_ms": repeat_ms(image),
    }


def show(found):
    wide, high = found["size"]
    print(
        f"A photograph of {WIDTH} x {HEIGHT} pixels, {found['kb']['original']:.0f} kB, sent as {wide} x {high}"
    )
    print(f"{'':<26}{'ms':>12}{'kB':>12}{'peak MB':>12}")
    for name in ("one line", "ours"):
        figures = (found[figure][name] for figure in ("ms", "kb", "peak_mb"))
        print(f"{name:<26}" + "".join(f"{figure:>12.1f}" for figure in figures))
    print()
    labels = {
        "speed": "times as fast as open, convert, resize, save",
        "bytes": "times fewer bytes than the original",
        "repeat_ms": "the same image again, ms",
        "memory_mb": "peak memory beyond Pillow and the file, MB",
    }
    for name, label in labels.items():
        value = found["peak_mb"]["ours"] if name == "memory_mb" else found[name]
        reached = value >= GOALS[name] if name in AT_LEAST else value <= GOALS[name]
        print(f"{label:<52}{value:>8.2f}   goal {GOALS[name]:g}{'' if reached else '   MISSED'}")


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
