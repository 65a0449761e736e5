"""What the tests of captions share: pictures in a folder, and a model that says something of each."""

import json

from llama_vision.llamaindex import LlamaVision, caption_images
from tests.drawing import COLORS, SHAPES, png, scene
from tests.emulator import Answer, Wait, completion

PAIRS = [(color, shape) for color in COLORS for shape in SHAPES]


def draw(folder, count, first=0):
    """Draw so many images, each another one."""
    paths = [folder / f"{number:02}.png" for number in range(first, first + count)]
    for number, path in enumerate(paths, first):
        path.write_bytes(png(scene((*PAIRS[number], 1, 1))))
    return paths


def model_at(emulator, model_class=LlamaVision, **options):
    fields = {"provider": "deepinfra", "api_base": emulator.base_url, "api_key": emulator.api_key}
    return model_class(**{"max_retries": 0, **fields, **options})


def caption(paths, llm, **options):
    return caption_images(paths, llm, progress=False, **options)


def naming(received):
    """Say something that depends on the image."""
    return completion(f"Picture of {len(received.images[0])} bytes.")


def slow(text, seconds):
    """Answer whole, after a while."""
    body = json.dumps(completion(text)).encode()
    return Answer((Wait(seconds), body), headers={"content-type": "application/json"})


def said_of(path):
    return f"Picture of {len(path.read_bytes())} bytes."


def words_in(received):
    """All text of the last message."""
    content = received.body["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")
