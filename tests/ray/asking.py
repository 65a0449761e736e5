"""What the tests of `BatchAsker` share."""

from typing import Literal

import numpy as np
from pydantic import BaseModel

from llama_vision.ray import BatchAsker
from tests.drawing import one_shape, png


class Drawing(BaseModel):
    shape: Literal["circle", "square", "triangle", "star", "cross"]
    color: str


def asker(server, *prompt, **options):
    return BatchAsker(*prompt, **server.model_options, **options)


def echo(request):
    """Repeat the question, and say how many images came with it."""
    return f"{request.text} {len(request.images)}"


def drawn(count):
    """Draw shapes; a third each as a file's bytes, as PIL image, and as an array."""
    rows = []
    for seed in range(count):
        image, color, shape = one_shape(seed)
        forms = [png(image), image, np.asarray(image)]
        rows.append({"image": forms[seed % 3], "question": f"What color is the {shape}?", "truth": color})
    return rows
