"""The local model the users' way: requests through `LocalBackend` that come and go, in one engine, with random weights."""

import asyncio
import random
import time
from contextlib import contextmanager

import PIL.Image

from llama_vision import ChatRequest, Message, ResponseFormat, SamplingParams, Text, image_from_any
from llama_vision.backends.local import LocalBackend, LocalSettings, engine_thread
from llama_vision.backends.local.engine import Engine
from llama_vision.providers import find_provider

MODEL = "llama-3.2-11b-vision"
QUESTION = "Describe the image in as many words as you can find, and say what stands where."
FORM = ResponseFormat(
    "json_schema",
    schema={
        "type": "object",
        "properties": {
            "title": {"type": "string", "maxLength": 20},
            "kind of document": {"enum": ["invoice", "letter", "contract"]},
            "number of pages": {"type": "integer", "minimum": 0, "maximum": 99},
        },
        "required": ["title", "kind of document", "number of pages"],
        "additionalProperties": False,
    },
)


@contextmanager
def backend_of(loaded, shape):
    """A backend whose engine runs this model, in place of one that is loaded by name."""
    load = engine_thread._import_engine  # noqa: SLF001 - a model of this size and without a file has no other way in
    settings = LocalSettings(max_batch_size=shape.slots, max_model_len=loaded.context_window)
    engine_thread._import_engine = lambda: lambda _, settings: Engine(loaded, settings)  # noqa: SLF001 - as said
    backend = LocalBackend(find_provider("local"), local=settings)
    try:
        yield backend
    finally:
        backend.close()
        engine_thread._import_engine = load  # noqa: SLF001 - as said


def ask(text, *images, max_tokens, **options):
    parts = (*(image_from_any(image) for image in images), Text(text))
    sampling = SamplingParams(max_tokens=max_tokens, temperature=0)
    return ChatRequest(MODEL, (Message("user", parts),), sampling=sampling, **options)


def image(shape, number):
    """A unique image of four tiles."""
    side = 2 * shape.vision["image_size"]
    return PIL.Image.new("RGB", (side, side), (number % 256, number // 256 % 256, 90))


def answer(backend, requests, pauses=None):
    """Send requests at once, or after so many seconds each: the time it took, and the replies."""

    async def one(request, pause):
        await asyncio.sleep(pause)
        return await backend.acomplete(request)

    async def together():
        pairs = zip(requests, pauses or [0.0] * len(requests), strict=True)
        return await asyncio.gather(*(one(request, pause) for request, pause in pairs))

    began = time.perf_counter()
    replies = asyncio.run(together())
    return time.perf_counter() - began, replies


def tokens_per_second(took, replies):
    return {
        "seconds": took,
        "tokens/s": sum(reply.usage.output_tokens for reply in replies) / took,
    }


class Requests:
    """Measurements, each with images that are in no cache; `floors` are seconds."""

    def __init__(self, backend, shape, floors):
        self.backend, self.shape, self.floors = backend, shape, floors
        self._next_image = 0

    def images(self, count):
        self._next_image += count
        return [image(self.shape, number) for number in range(self._next_image - count, self._next_image)]

    def all(self):
        """Name and measurement, the most important ones first."""
        count, slots = self.shape.requests, self.shape.slots
        name = f"{count} images x {self.shape.reply_tokens} tokens, {slots} slots"
        return {
            f"{name}, first time": self.many_images,
            f"{name}, second time": self.many_images,
            "8 new images together": self.new_images,
            f"prompt of {self.shape.prompt_tokens} tokens": self.long_prompt,
            f"{slots} requests about one image": self.shared_image,
            f"{slots} replies in JSON": self.guided,
            "requests that come and go": self.come_and_go,
        }

    def many_images(self):
        shape = self.shape
        requests = [ask(QUESTION, one, max_tokens=shape.reply_tokens) for one in self.images(shape.requests)]
        took, replies = answer(self.backend, requests)
        steps = shape.reply_tokens * shape.requests / shape.slots
        floor = shape.requests * self.floors["image"] + steps * self.floors["step"]
        return tokens_per_second(took, replies) | {
            "images/s": shape.requests / took,
            "share of the floor": floor / took,
        }

    def new_images(self):
        took, _ = answer(self.backend, [ask("Hi", one, max_tokens=1) for one in self.images(8)])
        return {"ms an image": took / 8 * 1e3, "share of the floor": 8 * self.floors["image"] / took}

    def long_prompt(self):
        text = f"{time.time()} " + "so " * self.shape.prompt_tokens
        took, (reply,) = answer(self.backend, [ask(text, max_tokens=1)])
        count = reply.usage.input_tokens
        return {"tokens/s": count / took, "share of the floor": count * self.floors["prompt token"] / took}

    def shared_image(self):
        (one,) = self.images(1)
        slots, reply_tokens = self.shape.slots, self.shape.reply_tokens
        requests = [ask(f"{number}. {QUESTION}", one, max_tokens=reply_tokens) for number in range(slots)]
        took, replies = answer(self.backend, requests)
        floor = self.floors["image"] + reply_tokens * self.floors["step"]
        return tokens_per_second(took, replies) | {"share of the floor": floor / took}

    def guided(self):
        requests = [
            ask(f"{number}. Title?", max_tokens=200, response_format=FORM)
            for number in range(self.shape.slots)
        ]
        return tokens_per_second(*answer(self.backend, requests))

    def come_and_go(self):
        """Text and images, short and long, at random times."""
        chance, requests, pauses = random.Random(1), [], []  # noqa: S311 - no secret
        images = iter(self.images(self.shape.requests))
        for number in range(self.shape.requests):
            parts = [next(images)] if chance.random() < 0.5 else []
            text = f"{number}. " + "and so on " * chance.choice([1, 10, 100])
            requests.append(ask(text, *parts, max_tokens=chance.randint(1, self.shape.reply_tokens)))
            pauses.append(chance.random() * self.shape.arrival_s)
        found = tokens_per_second(*answer(self.backend, requests, pauses))
        engine = engine_thread.get_engine_thread(MODEL, self.backend._local)._engine  # noqa: SLF001 - nothing else tells
        graphs = engine._cuda_graphs  # noqa: SLF001 - as said
        return found | {"CUDA graphs": 0 if graphs is None else graphs.num_graphs}
