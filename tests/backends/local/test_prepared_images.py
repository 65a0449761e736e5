"""An image that was encoded for a provider shows the model the same as the original does."""

import io
import queue

import pytest

from llama_vision import ChatRequest, Message, Text
from llama_vision.adaptation.pipeline import adapt_request
from llama_vision.backends import create_backend
from llama_vision.backends.local.engine_thread import get_engine_thread
from llama_vision.core.events import Finished, TextDelta
from llama_vision.images import image_from_bytes
from llama_vision.images.settings import ImageSettings
from llama_vision.providers import find_provider
from tests.drawing import one_shape

SIDE = 1130  # larger than the model can use, so that every one is scaled down and encoded anew
SETS = [("PNG", {}), ("JPEG", {"quality": 92}), ("WEBP", {"quality": 90}), ("TIFF", {})]


def untouched(request):
    """Ask the engine, past the backend and its adaptation."""
    outcomes = queue.SimpleQueue()
    get_engine_thread("tiny").submit(request, outcomes.put)
    text = ""
    while not isinstance(outcome := outcomes.get(), Finished):
        assert not isinstance(outcome, Exception), outcome
        text += outcome.text if isinstance(outcome, TextDelta) else ""
    return text


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "options"), SETS, ids=[kind for kind, _ in SETS])
def test_fifty_large_scenes_get_the_same_answers_as_they_are_and_encoded_for_the_wire(kind, options):
    backend, wire = create_backend(find_provider("local")), find_provider("deepinfra")
    for seed in range(50):
        image, color, shape = one_shape(1000 + seed)
        buffer = io.BytesIO()
        image.resize((SIDE, SIDE)).save(buffer, kind, **options)
        parts = (image_from_bytes(buffer.getvalue()), Text(f"What color is the {shape}?"))
        request = ChatRequest("tiny", (Message("user", parts),))
        sent = adapt_request(wire, request, ImageSettings(), api_key="k").request
        assert sent != request
        assert backend.complete(request).text == untouched(sent) == color
