"""Batches of training examples, made in worker processes."""

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
from training.conversations import ConversationWriter, TrainingExample
from training.foundation import IMAGE_SIZE, PATCH_SIZE
from training.images import chart, scene
from training.signs import sign

IMAGE_SEQ_LEN, LONG_SEQ_LEN = 152, 640
"""Sequence lengths are fixed, so that each kind of batch is compiled once: the longest JSON list fits one, three tools the other."""
IMAGES, LONG_ROWS, LONG_IMAGES = 36, 8, 2
"""Batch size for images, for long conversations, and how many of the latter have an image."""


@dataclass(slots=True)
class Batch:
    """Training examples of one length.

    Attributes:
        ids: Token ids, (batch, seq_len), padded at the end.
        loss_mask: (batch, seq_len), whether the token is the model's own and counts for the loss.
        tiles: (images, 3, side, side), 0 to 255, of the first rows; None where there are none.
        labels: (images, patches), as `Drawing.labels`.
        places: (images, patches), as `Drawing.places`.
        middles: (images, patches), the label of the object whose centre is there, or 0.
        image_mask: (batch, seq_len, 1), whether the token attends to the image of its row.
    """

    ids: np.ndarray
    loss_mask: np.ndarray
    tiles: np.ndarray | None
    labels: np.ndarray | None
    places: np.ndarray | None
    middles: np.ndarray | None
    image_mask: np.ndarray


def tile_of(drawing: Drawing) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Preprocess an image as the package does: scaled into the tile, padded with black.

    Returns:
        Pixels, (3, side, side), 0 to 255; and for each patch the label and place at its centre, and the object whose centre is in it.
    """
    image, side = drawing.image.convert("RGB"), IMAGE_SIZE
    scale = side / max(image.size)
    width, height = (min(side, max(1, int(length * scale + 1e-6))) for length in image.size)
    tile = Image.new("RGB", (side, side))
    tile.paste(image.resize((width, height), Image.Resampling.BILINEAR), (0, 0))
    labels, places = (_sample_patch_centers(one, width, height) for one in (drawing.labels, drawing.places))
    middles = np.zeros((side // PATCH_SIZE, side // PATCH_SIZE), np.int64)
    for x, y, label in drawing.middles:
        middles[int(y * height) // PATCH_SIZE, int(x * width) // PATCH_SIZE] = label
    return np.asarray(tile).transpose(2, 0, 1).copy(), labels, places, middles.reshape(-1)


def _sample_patch_centers(drawn: Image.Image, width: int, height: int) -> np.ndarray:
    """Read a label map of the image at the centre of each patch of the tile."""
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


class BatchMaker:
    """Makes batches, reproducibly from a seed."""

    def __init__(self, folder: Path, seed: int) -> None:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._pad = tokenizer.token_to_id("<|finetune_right_pad_id|>")
        self._image = tokenizer.token_to_id("<|image|>")
        self._chance = Random(seed)
        self._writer = ConversationWriter(tokenizer, self._chance)

    def images(self) -> Batch:
        """Make short conversations about images."""
        drawings = [any_drawing(self._chance) for _ in range(IMAGES)]
        examples = [self._writer.about_image(drawing, IMAGE_SEQ_LEN) for drawing in drawings]
        return self._batch(examples, drawings, IMAGE_SEQ_LEN)

    def talks(self) -> Batch:
        """Make long conversations, the first few about images."""
        drawings, examples = [], []
        while len(examples) < LONG_IMAGES:
            drawing = (
                scene(self._chance, count=1) if self._chance.random() < 0.4 else any_drawing(self._chance)
            )
            seeing = self._chance.random() < 0.35
            talk = self._writer.with_schema if seeing else self._writer.with_tools_and_image
            if (example := talk(drawing, LONG_SEQ_LEN)) is not None:
                drawings.append(drawing)
                examples.append(example)
        examples += (self._without_image() for _ in range(LONG_ROWS - LONG_IMAGES))
        return self._batch(examples, drawings, LONG_SEQ_LEN)

    def _without_image(self) -> TrainingExample:
        talk = self._writer.with_words if self._chance.random() < 0.15 else self._writer.with_tools
        return talk(LONG_SEQ_LEN)

    def _batch(self, examples: list[TrainingExample], drawings: list[Drawing], seq_len: int) -> Batch:
        ids = np.full((len(examples), seq_len), self._pad, np.int64)
        loss_mask = np.zeros((len(examples), seq_len), bool)
        for row, example in enumerate(examples):
            ids[row, : len(example.ids)] = example.ids
            loss_mask[row, : len(example.ids)] = example.loss_mask
        image_mask = (np.cumsum(ids == self._image, 1) > 0).astype(np.float32)[:, :, None]
        made = [tile_of(drawing) for drawing in drawings]
        maps = [np.stack(one) for one in zip(*made, strict=True)] if made else [None] * 3
        return Batch(ids, loss_mask, *maps, image_mask)


def stream(
    folder: Path, make: Callable[[BatchMaker, int], Batch], *, seed: int, count: int
) -> Iterator[Batch]:
    """Make batches in a worker process, a few ahead; the seed decides them all."""
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue(16)
    worker = context.Process(target=_work, args=(queue, folder, make, seed, count), daemon=True)
    worker.start()
    try:
        for _ in range(count):
            yield queue.get(timeout=300)
    finally:
        worker.terminate()


def _work(queue: Any, folder: Path, make: Callable[[BatchMaker, int], Batch], seed: int, count: int) -> None:
    maker = BatchMaker(folder, seed)
    for step in range(count):
        queue.put(make(maker, step))
