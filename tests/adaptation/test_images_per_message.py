"""Some hosts take one image a message, and not a request: a later turn may have another one."""

import asyncio
import base64

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock

from llama_vision.adaptation.pipeline import adapt_request
from llama_vision.core.errors import ImageError, UnsupportedInputError
from llama_vision.core.messages import Image, Message, Text, ToolResult
from llama_vision.core.request import ChatRequest
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.images.settings import ImageSettings
from llama_vision.providers import PROVIDERS
from tests.emulator import completion, json_answer
from tests.langchain.output_styles import WAYS, form_of, message
from tests.langchain.weather import model_at
from tests.llamaindex.cats import model_at as llamaindex_model_at

FILES = [SAMPLE_IMAGES[name].read_bytes() for name in ("circle", "shapes")]
ONE, TWO = (Image(data, "image/png") for data in FILES)
MODEL = {"model": "meta-llama/Llama-3.2-11B-Vision-Instruct"}


def one_image_a_message(received):
    """Answer as Ollama does: https://github.com/ollama/ollama/issues/9020."""
    for turn in received.body["messages"]:
        if str(turn["content"]).count("image_url': {") > 1:
            return json_answer({"error": "vision model only supports a single image per message"}, 500)
    return completion("Seen.")


def adapt(*messages, policy="error"):
    settings = ImageSettings(on_too_many=policy)
    return adapt_request(PROVIDERS["ollama"], ChatRequest("m", messages), settings).request


def said(*parts):
    return Message("user", (*parts, Text("What?")))


@pytest.mark.parametrize("way", WAYS)
def test_a_second_turn_at_ollama_may_have_another_image(emulator, way):
    emulator.always(one_image_a_message)
    blocks = [
        {"type": "image", "base64": base64.b64encode(data).decode(), "mime_type": "image/png"}
        for data in FILES
    ]
    thread = [HumanMessage([blocks[0], "What?"]), AIMessage("A circle."), HumanMessage([blocks[1], "And?"])]
    model = model_at(emulator, "ollama", **MODEL, **form_of(("v0", way)))
    assert message(model, ("v0", way), thread).text == "Seen."
    assert [len(turn["content"]) for turn in emulator.requests[0].body["messages"]] == [2, 9, 2]
    with pytest.raises(UnsupportedInputError, match="There are 2 images, and Ollama takes 1 in one message"):
        message(model, ("v0", way), [HumanMessage([*blocks, "What?"])])
    assert len(emulator.requests) == 1


def test_a_second_turn_at_ollama_may_have_another_image_in_llamaindex_too(emulator):
    emulator.always(one_image_a_message)
    thread = [
        ChatMessage(role=role, blocks=[*(ImageBlock(image=data) for data in images), TextBlock(text="So?")])
        for role, images in (("user", FILES[:1]), ("assistant", ()), ("user", FILES[1:]))
    ]
    model = llamaindex_model_at(emulator, "ollama", **MODEL)

    async def asynchronous():
        stream = [response async for response in await model.astream_chat(thread)]
        return [await model.achat(thread), stream[-1]]

    answers = [model.chat(thread), list(model.stream_chat(thread))[-1], *asyncio.run(asynchronous())]
    assert [answer.message.content for answer in answers] == ["Seen."] * 4


def test_the_policies_count_by_message():
    thread = (said(ONE, TWO), said(TWO))
    first = adapt(*thread, policy="first")
    assert [turn.images() for turn in first.messages] == [[ONE], [TWO]]
    (sheet,) = adapt(*thread, policy="grid").images()
    assert sheet not in (ONE, TWO)
    with pytest.raises(
        UnsupportedInputError, match=r"There are 2 images.*Ask about each in a message of its own\."
    ):
        adapt(*thread)


def test_images_of_tools_that_go_out_in_one_message_count_together():
    results = [Message("tool", (ToolResult(name, (image,)),)) for name, image in (("a", ONE), ("b", TWO))]
    with pytest.raises(UnsupportedInputError, match="There are 2 images, and Ollama takes 1 in one message"):
        adapt(said(), *results)
    kept = adapt(said(), *results, policy="first")
    assert kept.images() == [ONE]
    assert len(adapt(said(), results[0], said(), results[1]).images()) == 2


def test_a_broken_image_is_located_where_others_were_left_out():
    broken = Image(b"\x89PNG\r\n\x1a\n", "image/png")
    with pytest.raises(ImageError, match=r"of message 1 \(user\)"):
        adapt(said(ONE, TWO), said(broken), policy="first")
