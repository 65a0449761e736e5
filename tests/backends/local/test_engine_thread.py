"""Requests are made ready beside the engine: who is being answered does not wait for somebody's picture."""

import queue
import threading

from llama_vision import ChatRequest, Message, SamplingParams, Text, image_from_any
from llama_vision.backends.local import LocalSettings
from llama_vision.backends.local.engine_thread import EngineThread
from llama_vision.core.errors import ImageError
from llama_vision.core.events import Finished, TextDelta
from llama_vision.core.messages import Image
from llama_vision.demo import SAMPLE_IMAGES
from tests.drawing import one_shape

ENDLESS = SamplingParams(max_tokens=1500, temperature=50.0, top_k=1000, seed=8)


def ask(words, *images, **options):
    return ChatRequest("tiny", (Message("user", (*images, Text(words))),), **options)


def test_a_image_is_decoded_beside_the_engine_and_answers_keep_their_order():
    worker = EngineThread("tiny", LocalSettings(max_batch_size=2))
    heard = queue.SimpleQueue()

    def told(name):
        return lambda outcome: heard.put((name, threading.current_thread().name, outcome))

    image, color, shape = one_shape(3)
    broken = Image(SAMPLE_IMAGES["circle"].read_bytes()[:200], "image/png")
    try:
        endless = worker.submit(ask("Hi", sampling=ENDLESS), told("endless"))
        while not isinstance(heard.get()[2], TextDelta):
            pass
        worker.submit(ask("What?", broken), told("broken"))
        worker.submit(ask(f"What color is the {shape}?", image_from_any(image)), told("seeing"))
        threads, text = {}, ""
        while "seeing" not in threads:
            name, thread, outcome = heard.get(timeout=60)
            text += outcome.text if name == "seeing" and isinstance(outcome, TextDelta) else ""
            if isinstance(outcome, Finished | ImageError):
                threads[name] = thread
        endless.cancelled.set()
    finally:
        worker.stop()
    assert text == color
    assert threads == {"broken": "llama-vision tiny requests", "seeing": "llama-vision tiny"}
