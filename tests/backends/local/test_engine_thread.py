"""Requests are prepared beside the engine: running sequences do not wait for another one's image."""

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


def ask(text, *images, **options):
    return ChatRequest("tiny", (Message("user", (*images, Text(text))),), **options)


def test_an_image_is_decoded_beside_the_engine_and_outputs_keep_their_order():
    engine_thread = EngineThread("tiny", LocalSettings(max_batch_size=2))
    outputs = queue.SimpleQueue()

    def put_as(name):
        return lambda output: outputs.put((name, threading.current_thread().name, output))

    image, color, shape = one_shape(3)
    broken = Image(SAMPLE_IMAGES["circle"].read_bytes()[:200], "image/png")
    try:
        endless = engine_thread.submit(ask("Hi", sampling=ENDLESS), put_as("endless"))
        while not isinstance(outputs.get()[2], TextDelta):
            pass
        engine_thread.submit(ask("What?", broken), put_as("broken"))
        engine_thread.submit(ask(f"What color is the {shape}?", image_from_any(image)), put_as("with image"))
        threads, text = {}, ""
        while "with image" not in threads:
            name, thread, output = outputs.get(timeout=60)
            text += output.text if name == "with image" and isinstance(output, TextDelta) else ""
            if isinstance(output, Finished | ImageError):
                threads[name] = thread
        endless.cancelled.set()
    finally:
        engine_thread.stop()
    assert text == color
    assert threads == {"broken": "llama-vision tiny requests", "with image": "llama-vision tiny"}
