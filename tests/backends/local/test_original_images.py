"""The local model is given, bit for bit, what transformers' image processor makes of the user's own file."""

import asyncio
import base64
import io
import json

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import torch
from langchain_core.messages import HumanMessage
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

from llama_vision import ChatRequest, Image, Message, Text, image_from_any
from llama_vision.adaptation.pipeline import adapt_request
from llama_vision.backends import create_backend
from llama_vision.backends.local.model_loader import load_model
from llama_vision.core.errors import ImageError
from llama_vision.images.settings import EncodingOptions, ImageSettings
from llama_vision.langchain import ChatLlamaVision
from llama_vision.providers import find_provider
from tests.backends.local.test_image_processor import PUBLISHED, in_8_bits, noise, on_white
from tests.emulator.asking import WAYS, ask
from tests.random_model import write_random_model

LOCAL = find_provider("local")
SIZE = (1210, 1010)  # larger than the model uses, so that it was scaled and encoded for the wire once


def photo(mode="RGB", size=SIZE):
    """Draw something smooth, as photographs are."""
    return noise((20, 15), mode if mode in {"RGBA", "LA"} else "RGB").resize(size, 3).convert(mode)


def as_file(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return exif


def sixteen_bits():
    levels = np.linspace(0, 65535, SIZE[0] * SIZE[1]).reshape(SIZE[::-1])
    return PIL.Image.fromarray(levels.astype(np.uint16))


FILES = {
    "JPEG": lambda: as_file(photo(), "JPEG", quality=95),
    "JPEG in gray": lambda: as_file(photo("L"), "JPEG"),
    "JPEG in CMYK": lambda: as_file(photo("CMYK"), "JPEG"),
    "JPEG on its side": lambda: as_file(photo(), "JPEG", exif=turned(6)),
    "JPEG mirrored": lambda: as_file(photo(), "JPEG", exif=turned(5)),
    "small JPEG": lambda: as_file(photo(size=(70, 41)), "JPEG"),
    "PNG": lambda: as_file(photo(), "PNG"),
    "PNG with alpha": lambda: as_file(photo("RGBA"), "PNG"),
    "PNG in gray with alpha": lambda: as_file(photo("LA"), "PNG"),
    "PNG of 16 bits": lambda: as_file(sixteen_bits(), "PNG"),
    "PNG with a palette": lambda: as_file(photo().quantize(32), "PNG"),
    "PNG with a transparent color": lambda: as_file(photo().quantize(32), "PNG", transparency=3),
    "PNG of one bit": lambda: as_file(photo("1"), "PNG"),
    "PNG on its side": lambda: as_file(photo(), "PNG", exif=turned(8)),
    "WebP": lambda: as_file(photo(), "WEBP"),
    "WebP with alpha": lambda: as_file(photo("RGBA"), "WEBP", lossless=True),
    "GIF": lambda: as_file(photo(), "GIF"),
    "animated GIF": lambda: as_file(
        photo(), "GIF", save_all=True, append_images=[photo("L").convert("RGB").rotate(90)]
    ),
    "BMP": lambda: as_file(photo(), "BMP"),
    "TIFF": lambda: as_file(photo(), "TIFF"),
}


def upright(data):
    """Decode with Pillow alone: the first frame, by EXIF, of 8 bits, on white."""
    image = PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(data)))
    if image.mode == "I;16":
        return in_8_bits(image).convert("RGB")
    return on_white(image) if image.has_transparency_data else image.convert("RGB")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A model with the 11B's image processor: tiles of 560 pixels, at most 4."""
    folder = write_random_model(tmp_path_factory.mktemp("published") / "model", side=560, patch_size=140)
    (folder / "preprocessor_config.json").write_text(json.dumps(PUBLISHED))
    return str(folder)


class Watched:
    """What a model's vision encoder is given."""

    def __init__(self, model):
        self.loaded, self.pixels, self.aspect_ratio_ids = load_model(model), [], []
        vision = self.loaded.model.model.vision_model
        self.handles = [
            vision.patch_embedding.register_forward_pre_hook(lambda _, given: self.pixels.append(given[0])),
            vision.pre_tile_positional_embedding.register_forward_pre_hook(
                lambda _, given: self.aspect_ratio_ids.extend(given[1].flatten().tolist())
            ),
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()

    def check(self, *images):
        """Compare what it was given with what transformers' processor makes of images, in any order."""
        options = {
            name: value for name, value in self.loaded.image_processor_config.items() if value is not None
        }
        wanted = MllamaImageProcessorPil(**options)(images=[[image] for image in images], return_tensors="pt")
        wanted_pixels = wanted["pixel_values"][:, 0]
        pixels = torch.cat(self.pixels).view(wanted_pixels.shape)
        found = list(zip(self.aspect_ratio_ids, pixels, strict=True))
        for ratio, image in zip(wanted["aspect_ratio_ids"].flatten().tolist(), wanted_pixels, strict=True):
            same = [
                pair for pair in found if pair[0] == ratio and torch.equal(pair[1], image.to(pair[1].dtype))
            ]
            assert same
        self.pixels.clear()
        self.aspect_ratio_ids.clear()


def ask_langchain(model, data, **options):
    block = {"type": "image", "base64": base64.b64encode(data).decode(), "mime_type": "image/png"}
    chat = ChatLlamaVision(provider="local", model=model, max_tokens=1, **options)
    prompt = [HumanMessage([block, {"type": "text", "text": "What color is the circle?"}])]
    return chat.invoke(prompt)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("which", [pytest.param("tiny", marks=pytest.mark.slow), "published"])
@pytest.mark.slow_beyond(4)
def test_every_kind_of_file_through_langchain(which, kind, request):
    data = FILES[kind]()
    model = which if which == "tiny" else request.getfixturevalue(which)
    with Watched(model) as watched:
        ask_langchain(model, data)
        watched.check(upright(data))


def test_two_files_through_the_backend_async():
    files = [
        as_file(photo(size=(333, 1210)), "JPEG", exif=turned(3)),
        as_file(photo("RGBA", (50, 333)), "PNG"),
    ]
    parts = (*map(image_from_any, files), Text("What?"))
    with Watched("tiny") as watched:
        asyncio.run(create_backend(LOCAL).acomplete(ChatRequest("tiny", (Message("user", parts),))))
        watched.check(*map(upright, files))


def test_nothing_is_encoded_whatever_format_is_asked_for():
    data = FILES["WebP"]()
    with Watched("tiny") as watched:
        ask_langchain(
            "tiny", data + b" ", image_format="jpeg", image_quality=5
        )  # as bytes that it has not seen
        watched.check(upright(data))


def adapted(data, *, detail=None, **options):
    image = Image(data, "image/png", detail=detail)
    settings = ImageSettings(EncodingOptions(**options))
    request = ChatRequest("tiny", (Message("user", (image,)),))
    (prepared,) = adapt_request(LOCAL, request, settings).request.images()
    return prepared


def test_a_file_is_passed_on_as_it_is():
    data = FILES["JPEG on its side"]()
    for prepared in (
        adapted(data),
        adapted(data, max_pixels=SIZE[0] * SIZE[1]),
        adapted(data, detail="high"),
    ):
        assert prepared.data is data
        assert prepared.media_type == "image/jpeg"


def test_max_pixels_scales_without_loss():
    data = as_file(photo("L"), "JPEG")
    prepared = adapted(data, max_pixels=500_000, format="jpeg")
    image = PIL.Image.open(io.BytesIO(prepared.data))
    assert image.format == "PNG"
    assert 0.99 * 500_000 < image.width * image.height <= 500_000
    whole = PIL.Image.open(io.BytesIO(data)).resize(image.size, PIL.Image.Resampling.HAMMING)
    assert np.abs(np.asarray(image)[..., 0].astype(int) - np.asarray(whole)).max() <= 4


def test_low_detail_is_one_tile_of_the_11b():
    prepared = adapted(FILES["JPEG"](), detail="low")
    image = PIL.Image.open(io.BytesIO(prepared.data))
    assert (image.format, max(image.size), prepared.detail) == ("PNG", 560, "low")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("data", "text"),
    [
        (as_file(noise((100, 100)), "PNG")[:3000], "The PNG file of 3000 bytes can't be decoded"),
        (
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x75\x30\0\0\x75\x30\x08\2\0\0\0",
            "The image claims 30000 x 30000 pixels",
        ),
        (b"no image", "This is not an image"),
    ],
    ids=["damaged", "a bomb", "no image"],
)
def test_errors_name_the_image_and_its_message(way, data, text):
    good, bad = image_from_any(FILES["small JPEG"]()), Image(data, "image/png")
    messages = (
        Message("system", (Text("Be kind."),)),  # moves into the user's turn, after the images are counted
        Message("user", (Text("What?"), good)),
        Message("assistant", (Text("Noise."),)),
        Message("user", (bad, Text("And this?"))),
    )
    backend = create_backend(LOCAL)
    with pytest.raises(ImageError, match=rf"^Image 2, of message 3 \(user\): {text}.*\[local, tiny\]$"):
        ask(backend, way, ChatRequest("tiny", messages))
