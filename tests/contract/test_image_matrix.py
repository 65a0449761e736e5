"""Every form of an image, through both adapters, to every provider: as many as were given, upright, in order."""

import asyncio
import base64
import copy
import io

import PIL.Image
import pytest
from langchain_core.messages import HumanMessage
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.schema import ImageDocument, ImageNode

from llama_vision import find_provider
from llama_vision.core.errors import ImageError, UnsupportedInputError
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision
from tests.contract.adapters import _account, _model_name

SEEING = ("deepinfra", "aimlapi", "aigateway", "cloudflare", "openai-compatible")
ONE_IMAGE = {"cloudflare"}


def drawing():
    """A small PNG, which is sent as it is."""
    image = PIL.Image.new("RGB", (64, 48), (255, 255, 255))
    image.paste((220, 30, 30), (0, 0, 32, 48))
    return image


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned_photo():
    """A large JPEG that lies on its side, as a camera writes it: red is on top once it is upright."""
    image = PIL.Image.new("RGB", (2400, 1800), (30, 60, 200))
    image.paste((220, 30, 30), (0, 0, 1200, 1800))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    return encoded(image, "JPEG", quality=90, exif=exif)


SMALL = encoded(drawing(), "PNG")
LARGE = turned_photo()
BASE64 = base64.b64encode(SMALL).decode()
DATA_URL = f"data:image/gif;base64,{BASE64}"  # wrongly labelled

LANGCHAIN = {
    "v1 base64": {"type": "image", "base64": BASE64, "mime_type": "image/jpeg"},
    "v1 data URL": {"type": "image", "url": DATA_URL},
    "v0 base64": {"type": "image", "source_type": "base64", "data": BASE64, "mime_type": "image/png"},
    "OpenAI": {"type": "image_url", "image_url": {"url": DATA_URL}},
    "OpenAI, a string": {"type": "image_url", "image_url": DATA_URL},
    "Anthropic": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": BASE64}},
}
LLAMAINDEX = {
    "ImageBlock of bytes": lambda path: ImageBlock(image=SMALL),
    "ImageBlock of a file": lambda path: ImageBlock(image=io.BytesIO(SMALL)),
    "ImageBlock of a path": lambda path: ImageBlock(path=path),
    "ImageBlock of a data URL": lambda path: ImageBlock(url=DATA_URL),
    "ImageDocument": lambda path: ImageDocument(image_path=str(path)),
    "ImageNode": lambda path: ImageNode(image_path=str(path)),
    "ImageNode of base64": lambda path: ImageNode(image=BASE64),
    "path": lambda path: path,
    "path as text": str,
    "bytes": lambda path: SMALL,
    "PIL": lambda path: drawing(),
}


def langchain_at(emulator, provider, **options):
    return ChatLlamaVision(
        provider=provider,
        base_url=emulator.base_url,
        api_key=emulator.api_key,
        **_account(provider),
        **_model_name(provider),
        **options,
    )


def llamaindex_at(emulator, provider, **options):
    return LlamaVision(
        provider=provider,
        api_base=emulator.base_url,
        api_key=emulator.api_key,
        **_account(provider),
        **_model_name(provider),
        **options,
    )


def seen(emulator):
    """The images of the last request, decoded."""
    return [PIL.Image.open(io.BytesIO(data)).convert("RGB") for data in emulator.requests[-1].images]


@pytest.fixture(params=SEEING)
def provider(request):
    return request.param


@pytest.fixture
def emulator(emulator_of, provider):
    return emulator_of(provider)


@pytest.mark.parametrize("name", LANGCHAIN)
def test_every_spelling_of_langchain_arrives(emulator, provider, name):
    message = HumanMessage([{"type": "text", "text": "What is it?"}, LANGCHAIN[name]])
    before = copy.deepcopy(message)
    assert langchain_at(emulator, provider).invoke([message]).text == "I see 1 image(s)."
    assert emulator.requests[-1].images == [SMALL]
    assert message == before


@pytest.mark.parametrize("name", LLAMAINDEX)
def test_every_form_of_llamaindex_arrives(emulator, provider, name, tmp_path):
    path = tmp_path / "small.png"
    path.write_bytes(SMALL)
    response = llamaindex_at(emulator, provider).complete("What?", image_documents=[LLAMAINDEX[name](path)])
    assert response.text == "I see 1 image(s)."
    (image,) = seen(emulator)
    assert image.tobytes() == drawing().tobytes()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_large_photo_arrives_upright_and_small(emulator, provider, asynchronous):
    block = {"type": "image", "base64": base64.b64encode(LARGE).decode(), "mime_type": "image/jpeg"}
    model, prompt = (
        langchain_at(emulator, provider),
        [HumanMessage([block, {"type": "text", "text": "What?"}])],
    )
    asyncio.run(model.ainvoke(prompt)) if asynchronous else model.invoke(prompt)
    (image,) = seen(emulator)
    assert max(image.size) <= 1120
    assert image.width < image.height
    red, blue = (image.getpixel((image.width // 2, image.height * part // 10)) for part in (1, 9))
    assert red[0] > 180
    assert red[2] < 80
    assert blue[2] > 150
    assert blue[0] < 80
    assert len(emulator.requests[-1].images[0]) < len(LARGE)


def test_several_images_arrive_in_order_or_are_refused(emulator, provider):
    images = [PIL.Image.new("RGB", (40, 30), color) for color in ("red", "green", "blue")]
    blocks = [ImageBlock(image=encoded(image, "PNG")) for image in images]
    message = ChatMessage(blocks=[*blocks, TextBlock(text="Compare.")])
    model = llamaindex_at(emulator, provider)
    if provider in ONE_IMAGE:
        with pytest.raises(UnsupportedInputError, match="3 images"):
            model.chat([message])
        assert emulator.requests == []
        return
    model.chat([message])
    assert [image.tobytes() for image in seen(emulator)] == [image.tobytes() for image in images]


def test_the_first_of_too_many_images_is_sent_where_that_is_wished(emulator, provider):
    images = [encoded(PIL.Image.new("RGB", (40, 30), color), "PNG") for color in ("red", "green")]
    llamaindex_at(emulator, provider, image_policy="first").complete("What?", image_documents=images)
    assert emulator.requests[-1].images == (images[:1] if provider in ONE_IMAGE else images)


def test_too_many_images_go_onto_one_sheet_where_that_is_wished(emulator, provider):
    images = [encoded(PIL.Image.new("RGB", (400, 300), color), "PNG") for color in ("red", "lime", "blue")]
    llamaindex_at(emulator, provider, image_policy="grid").complete("What?", image_documents=images)
    sent = seen(emulator)
    if provider not in ONE_IMAGE:
        assert len(sent) == 3
        return
    (sheet,) = sent
    colors = {color for _, color in sheet.getcolors(sheet.width * sheet.height)}
    assert {(255, 0, 0), (0, 255, 0), (0, 0, 255)} <= colors
    assert max(sheet.size) <= 1120
    assert "3 images" in str(emulator.requests[-1].body["messages"])


def test_a_image_that_is_no_accepted_kind_is_sent_as_one(emulator, provider):
    image = PIL.Image.new("RGB", (40, 30), "red")
    llamaindex_at(emulator, provider).complete("What?", image_documents=[encoded(image, "TIFF")])
    (sent,) = emulator.requests[-1].images
    assert PIL.Image.open(io.BytesIO(sent)).format in ("PNG", "JPEG")
    assert seen(emulator)[0].tobytes() == image.tobytes()


def test_a_broken_image_is_named_by_its_place_and_nothing_is_sent(emulator, provider):
    message = HumanMessage(
        [
            {"type": "image", "base64": base64.b64encode(SMALL[:60]).decode(), "mime_type": "image/png"},
            {"type": "text", "text": "What?"},
        ]
    )
    with pytest.raises(ImageError, match=r"Image 1, of message 1 \(user\)"):
        langchain_at(emulator, provider).invoke(["Hello!", message])
    assert emulator.requests == []


def test_the_options_of_the_class_arrive(emulator, provider):
    model = llamaindex_at(emulator, provider, image_max_pixels=10_000, image_format="jpeg", image_quality=50)
    model.complete("What?", image_documents=[PIL.Image.new("RGB", (400, 300), "red")])
    (sent,) = emulator.requests[-1].images
    image = PIL.Image.open(io.BytesIO(sent))
    assert image.format == "JPEG"
    assert image.width * image.height <= 10_000


def test_an_address_is_passed_on_or_fetched_with_the_guard_up(emulator, provider):
    block = {"type": "image", "url": "http://127.0.0.1:9/secret.png"}
    model = langchain_at(emulator, provider)
    if find_provider(provider).image_rules.accepts_urls:
        model.invoke([HumanMessage([block])])
        assert emulator.requests[-1].image_urls == [block["url"]]
    else:
        with pytest.raises(ImageError, match=r"127\.0\.0\.1"):
            model.invoke([HumanMessage([block])])
        assert emulator.requests == []
