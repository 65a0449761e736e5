"""What is done with pictures before a call: warned of, counted, and kept from the event loop."""

import asyncio
import base64
import io
import os
import time
from dataclasses import replace

import PIL.Image
import pytest

from llama_vision import ChatRequest, Image, Message, Text, ToolResult
from llama_vision.adaptation.images import locate
from llama_vision.adaptation.pipeline import aadapt_request, adapt_request
from llama_vision.adaptation.token_estimate import estimate_text_tokens, estimate_tokens
from llama_vision.core.errors import ImageError
from llama_vision.images.fetch_policy import FetchPolicy
from llama_vision.images.settings import ImageSettings
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision
from llama_vision.providers import PROVIDERS, ImageConstraints
from tests.backends.http.alone import run_alone
from tests.emulator import Emulator
from tests.images.image_server import ImageServer, answer


def png(color, size=(40, 30)):
    buffer = io.BytesIO()
    PIL.Image.new("RGB", size, color).save(buffer, "PNG")
    return Image(buffer.getvalue(), "image/png")


ONE_IMAGE = replace(PROVIDERS["deepinfra"], image_rules=ImageConstraints(max_count=1))


def adapt(request, provider=PROVIDERS["deepinfra"], settings=ImageSettings()):  # noqa: B008 - frozen
    return adapt_request(provider, request, settings, api_key="k").request


def test_a_request_without_images_is_left_alone():
    request = ChatRequest("m", (Message("user", (Text("Hi"),)),))
    assert adapt(request) is request
    assert (
        asyncio.run(aadapt_request(PROVIDERS["deepinfra"], request, ImageSettings(), api_key="k")).request
        is request
    )


def test_images_in_tool_results_count_and_keep_their_places():
    red, green, blue = png("red"), png("green"), png("blue")
    request = ChatRequest(
        "m",
        (
            Message("user", (red, Text("What?"))),
            Message("tool", (ToolResult("c1", (Text("See:"), green)), ToolResult("c2", (blue,)))),
        ),
    )
    ready = adapt(request)
    assert ready == request
    first = adapt(request, ONE_IMAGE, ImageSettings(on_too_many="first"))
    assert first.images() == [red]
    assert first.messages[1].parts == (ToolResult("c1", (Text("See:"),)), ToolResult("c2", ()))


@pytest.mark.parametrize("provider", ["deepinfra", "ollama"])
@pytest.mark.parametrize("on_sheet", [False, True])
def test_addresses_are_fetched_on_the_event_loop_where_the_provider_takes_none_and_for_a_sheet(
    provider, on_sheet
):
    rules = replace(PROVIDERS[provider].image_rules, max_count=1)
    with ImageServer() as server:
        server.answers["/a.png"] = [answer(png("red").data)]
        image = Image(url=server.url("/a.png"))
        request = ChatRequest("m", (Message("user", (image,) * (1 + on_sheet)),))
        settings = ImageSettings(on_too_many="grid", fetch=FetchPolicy(private_networks=True))
        ready = asyncio.run(
            aadapt_request(replace(PROVIDERS[provider], image_rules=rules), request, settings, api_key="k")
        )
        (shown,) = ready.request.images()
        assert (shown.data is None) is (rules.accepts_urls and not on_sheet)
        assert (server.connections > 0) is (shown.data is not None)


def test_the_event_loop_goes_on_while_a_image_is_prepared():
    buffer = io.BytesIO()
    PIL.Image.frombytes("RGB", (3000, 2000), os.urandom(18_000_000)).save(buffer, "JPEG")
    request = ChatRequest("m", (Message("user", (Image(buffer.getvalue(), "image/jpeg"),)),))

    async def measure():
        longest, began = 0.0, time.monotonic()
        last = began
        work = asyncio.ensure_future(
            aadapt_request(PROVIDERS["deepinfra"], request, ImageSettings(), api_key="k")
        )
        while not work.done():
            await asyncio.sleep(0.001)
            now = time.monotonic()
            longest, last = max(longest, now - last), now
        return longest, time.monotonic() - began

    longest, whole = asyncio.run(measure())
    assert longest < whole / 2


def test_tools_beside_a_image_are_warned_of_once(emulator: Emulator):
    run_alone(
        emulator,
        """
        import warnings
        from dataclasses import replace
        from llama_vision import Image, Message, Text, Tool
        from llama_vision.core.request import ChatRequest
        from llama_vision.demo import SAMPLE_IMAGES

        picture = Image(SAMPLE_IMAGES["circle"].read_bytes(), "image/png")
        request = ChatRequest(
            "meta-llama/Llama-3.2-11B-Vision-Instruct",
            (Message("user", (picture, Text("What is it?"))),),
            tools=(Tool("look"),),
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            backend.complete(replace(request, tools=()))
            assert not caught
            for _ in range(3):
                backend.complete(request)
        (only,) = caught
        assert "Tool Calling does NOT work with images" in str(only.message)
        """,
    )


def test_words_are_estimated_and_images_counted_by_their_tiles():
    assert estimate_text_tokens("") == 0
    assert estimate_text_tokens("four") == 1
    assert estimate_text_tokens("fives") == 2
    small, large = png("red", (560, 560)), png("red", (1120, 1120))
    empty = estimate_tokens([Message("user", ())])
    assert estimate_tokens([Message("user", (small,))]) - empty == 1601
    assert estimate_tokens([Message("user", (large,))]) - empty == 4 * 1601
    by_url = Image(url="https://example.com/a.png")
    assert estimate_tokens([Message("user", (by_url,))]) - empty == 4 * 1601


def test_both_adapters_count_alike():
    from langchain_core.messages import HumanMessage
    from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock

    image = png("red", (600, 300))
    block = {"type": "image", "base64": base64.b64encode(image.data).decode(), "mime_type": "image/png"}
    langchain = ChatLlamaVision().get_num_tokens_from_messages(
        [HumanMessage([block, {"type": "text", "text": "What is it?"}])]
    )
    blocks = [ImageBlock(image=image.data), TextBlock(text="What is it?")]
    assert langchain == LlamaVision().count_tokens([ChatMessage(blocks=blocks)]) == 4 + 2 * 1601 + 3


def test_tools_count_too():
    def look(place: str) -> str:
        """Look at a place."""
        return place

    from langchain_core.messages import HumanMessage

    model, prompt = ChatLlamaVision(), [HumanMessage("Hi")]
    assert (
        model.get_num_tokens_from_messages(prompt, [look]) > model.get_num_tokens_from_messages(prompt) + 10
    )
    assert model.get_num_tokens("Hello!") == 2


@pytest.mark.parametrize("field", ["image_policy", "image_format"])
def test_a_wish_that_is_not_known_is_refused(field):
    for model_class in (ChatLlamaVision, LlamaVision):
        with pytest.raises(ValueError, match=field):
            model_class(**{field: "nonsense"})


def test_an_error_about_no_image_in_particular_keeps_its_text():
    error = ImageError("All images together are too large.")
    locate(error, ["Image 1, of message 0 (user)"])
    assert str(error) == "All images together are too large."
