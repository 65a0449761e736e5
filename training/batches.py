"""Batches of lessons, made beside the training by processes of their own."""

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import Tokenizer

from training.canvas import Drawing
from training.conversations import Lesson, Teacher
from training.foundation import IMAGE_SIZE, PATCH_SIZE
from training.images import chart, scene
from training.signs import sign

IMAGE_WORDS, LONG_WORDS = 152, 640
"""Lengths are fixed, so that each kind of batch is compiled once: the longest JSON list fits the one, three tools the other."""
IMAGES, LONG_ROWS, LONG_IMAGES = 36, 8, 2
"""How many rows a batch of pictures has, how many one of long talks, and how many of those have a picture."""


@dataclass(slots=True)
class Batch:
    """Lessons of one length.

    Attributes:
        ids: (rows, words), filled up at the end.
        taught: The same; whether the model has to say the word.
        tiles: (images, 3, side, side), 0 to 255, of the first rows; None where there are none.
        labels: (images, patches), as `Drawing.labels`.
        places: (images, patches), as `Drawing.places`.
        middles: (images, patches), the label of what has its middle there, or 0.
        sees: (rows, words, 1), whether the word sees the image of its row.

    """

    ids: np.ndarray
    taught: np.ndarray
    tiles: np.ndarray | None
    labels: np.ndarray | None
    places: np.ndarray | None
    middles: np.ndarray | None
    sees: np.ndarray


def tile_of(drawing: Drawing) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Make of an image what the package's preprocessing makes: scaled into the tile, black beside it.

    Returns:
        Pixels, (3, side, side), 0 to 255; and for each patch what stands in its middle, where, and what has its own middle in it.

    """
    image, side = drawing.image.convert("RGB"), IMAGE_SIZE
    scale = side / max(image.size)
    width, height = (min(side, max(1, int(length * scale + 1e-6))) for length in image.size)
    tile = Image.new("RGB", (side, side))
    tile.paste(image.resize((width, height), Image.Resampling.BILINEAR), (0, 0))
    labels, places = (_looked_up(one, width, height) for one in (drawing.labels, drawing.places))
    middles = np.zeros((side // PATCH_SIZE, side // PATCH_SIZE), np.int64)
    for x, y, label in drawing.middles:
        middles[int(y * height) // PATCH_SIZE, int(x * width) // PATCH_SIZE] = label
    return np.asarray(tile).transpose(2, 0, 1).copy(), labels, places, middles.reshape(-1)


def _looked_up(drawn: Image.Image, width: int, height: int) -> np.ndarray:
    """Look up the middle of each patch of the tile in a map of the image."""
    middles, values = np.arange(PATCH_SIZE // 2, IMAGE_SIZE, PATCH_SIZE), np.asarray(drawn)
    across, down = middles[middles < width], middles[middles < height]
    rows, columns = (
        (down * values.shape[0] / height).astype(int),
        (across * values.shape[1] / width).astype(int),
    )
    found = np.zeros((len(middles), len(middles)), np.int64)
    found[: len(down), : len(across)] = values[np.ix_(rows, columns)]
    return found.reshape(-1)


def any_drawing(chance: Random) -> Drawing:
    """Draw a scene, a sign or a chart."""
    return chance.choices((scene, sign, chart), (0.56, 0.34, 0.1))[0](chance)


class Maker:
    """Makes batches; the same seed makes the same ones."""

    def __init__(self, folder: Path, seed: int) -> None:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._pad = tokenizer.token_to_id("<|finetune_right_pad_id|>")
        self._image = tokenizer.token_to_id("<|image|>")
        self._chance = Random(seed)
        self._teacher = Teacher(tokenizer, self._chance)

    def images(self) -> Batch:
        """Make short talks about images."""
        drawings = [any_drawing(self._chance) for _ in range(IMAGES)]
        lessons = [self._teacher.about_image(drawing, IMAGE_WORDS) for drawing in drawings]
        return self._batch(lessons, drawings, IMAGE_WORDS)

    def talks(self) -> Batch:
        """Make long talks, the first few about images."""
        drawings, lessons = [], []
        while len(lessons) < LONG_IMAGES:
            drawing = (
                scene(self._chance, count=1) if self._chance.random() < 0.4 else any_drawing(self._chance)
            )
            seeing = self._chance.random() < 0.35
            talk = self._teacher.with_schema if seeing else self._teacher.with_tools_and_image
            if (lesson := talk(drawing, LONG_WORDS)) is not None:
                drawings.append(drawing)
                lessons.append(lesson)
        lessons += (self._without_image() for _ in range(LONG_ROWS - LONG_IMAGES))
        return self._batch(lessons, drawings, LONG_WORDS)

    def _without_image(self) -> Lesson:
        talk = self._teacher.with_words if self._chance.random() < 0.15 else self._teacher.with_tools
        return talk(LONG_WORDS)

    def _batch(self, lessons: list[Lesson], drawings: list[Drawing], words: int) -> Batch:
        ids = np.full((len(lessons), words), self._pad, np.int64)
        taught = np.zeros((len(lessons), words), bool)
        for row, lesson in enumerate(lessons):
            ids[row, : len(lesson.ids)] = lesson.ids
            taught[row, : len(lesson.ids)] = lesson.taught
        sees = (np.cumsum(ids == self._image, 1) > 0).astype(np.float32)[:, :, None]
        made = [tile_of(drawing) for drawing in drawings]
        maps = [np.stack(one) for one in zip(*made, strict=True)] if made else [None] * 3
        return Batch(ids, taught, *maps, sees)


def stream(folder: Path, make: Callable[[Maker, int], Batch], *, seed: int, count: int) -> Iterator[Batch]:
    """Make batches in a process of their own, a few ahead; the seed decides them all."""
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue(16)
    worker = context.Process(target=_work, args=(queue, folder, make, seed, count), daemon=True)
    worker.start()
    try:
        for _ in range(count):
            yield queue.get(timeout=300)
    finally:
        worker.terminate()


def _work(queue: Any, folder: Path, make: Callable[[Maker, int], Batch], seed: int, count: int) -> None:
    maker = Maker(folder, seed)
    for step in range(count):
        queue.put(make(maker, step))
