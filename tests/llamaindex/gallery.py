"""Images to retrieve: three files in every form that a node may have, and what of them arrived at an emulator."""

import asyncio
import base64
import contextlib
import io

import PIL.Image
import PIL.ImageColor
import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import ImageDocument, ImageNode, MediaResource, Node, NodeWithScore

from llama_vision.llamaindex import LlamaVision, LlamaVisionMultiModal

BOTH = pytest.mark.parametrize("model_class", [LlamaVision, LlamaVisionMultiModal])
WAYS = ("whole", "awhole", "stream", "astream")
EVERY_WAY = pytest.mark.parametrize("way", WAYS)
COLORS = ("red", "lime", "blue")
NOTHING = "Hello! How can I help you today?"  # what the emulated model says that was shown no image


def _drawn(color):
    file = io.BytesIO()
    PIL.Image.new("RGB", (40, 30), color).save(file, "PNG")
    return file.getvalue()


FILES = tuple(map(_drawn, COLORS))
"""So small that each is sent byte for byte."""


def in_base64(number):
    return base64.b64encode(FILES[number]).decode()


NODES = {
    # An index passes over nodes that have neither text nor metadata.
    "ImageNode of a path": lambda paths, number: ImageNode(
        image_path=str(paths[number]), metadata={"number": number}
    ),
    "ImageNode of a path, with text": lambda paths, number: ImageNode(
        text=f"Image {number}", image_path=str(paths[number])
    ),
    "ImageNode of base64": lambda paths, number: ImageNode(image=in_base64(number)),
    "ImageNode of base64, with text": lambda paths, number: ImageNode(
        text=f"Image {number}", image=in_base64(number), image_mimetype="image/png"
    ),
    "ImageDocument of a path": lambda paths, number: ImageDocument(image_path=str(paths[number])),
    "ImageDocument of base64": lambda paths, number: ImageDocument(image=in_base64(number)),
    "Node of a path": lambda paths, number: Node(
        text_resource=MediaResource(text=f"Image {number}"),
        image_resource=MediaResource(path=paths[number]),
    ),
}


def nodes_of(paths, kind="ImageNode of a path, with text"):
    return [NODES[kind](paths, number) for number in range(len(paths))]


class Shelf(BaseRetriever):
    """Finds all it has, whatever is asked."""

    def __init__(self, nodes):
        super().__init__()
        self._nodes = nodes

    def _retrieve(self, query_bundle):
        return [NodeWithScore(node=node, score=1.0) for node in self._nodes]


def seen(emulator):
    """Say of each request which of the `FILES` came with it, in order; nothing else may have come."""
    return [[FILES.index(image) for image in received.images] for received in emulator.requests]


def colors_of(image):
    """Find the plain colours in an image."""
    pixels = PIL.Image.open(io.BytesIO(image)).convert("RGB")
    named = {PIL.ImageColor.getrgb(color): color for color in COLORS}
    return {named[color] for _, color in pixels.getcolors(pixels.width * pixels.height) if color in named}


def query(engine, way, question="What do you see?"):
    """Ask a query engine in one of the `WAYS`; a streamed answer is read to its end."""

    async def asked():
        response = await engine.aquery(question)
        if way == "awhole":
            return str(response)
        async with contextlib.aclosing(response.response_gen) as pieces:
            return "".join([piece async for piece in pieces])

    match way:
        case "whole":
            return str(engine.query(question))
        case "stream":
            return "".join(engine.query(question).response_gen)
        case _:
            return asyncio.run(asked())
