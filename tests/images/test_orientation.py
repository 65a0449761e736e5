"""A PIL image is sent as its file would be: turned upright, whatever format it was opened from and whatever class is asked."""

import io

import PIL.Image
import PIL.ImageOps
import pytest
from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock

from llama_vision import image_from_any
from llama_vision.images.constraints import ImageConstraints
from llama_vision.images.decode import decode
from llama_vision.images.prepare import prepare_image
from llama_vision.llamaindex import LlamaVision, LlamaVisionMultiModal
from llama_vision.ray import BatchAsker
from llama_vision.testing import ScriptedServer
from tests.images.images import HAS_AVIF, difference, encoded, mean_difference, opened, sketch

TO_STORED = {  # what brings an upright image into the state that the orientation describes
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_90",
    7: "TRANSVERSE",
    8: "ROTATE_270",
}
OPTIONS = {
    "JPEG": {"quality": 95},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "MPO": {"quality": 95},
    **({"AVIF": {"quality": 95}} if HAS_AVIF else {}),
}
ROTATED = pytest.mark.parametrize("orientation", [*TO_STORED, 1, 0, 9, 99])


def turned(orientation, kind):
    """Encode the sketch as a camera that was held in another way would."""
    stored = sketch()
    if orientation in TO_STORED:
        stored = stored.transpose(PIL.Image.Transpose[TO_STORED[orientation]])
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return encoded(stored, kind, exif=exif, **OPTIONS[kind])


def pil(data):
    return PIL.Image.open(io.BytesIO(data))


def shown(image):
    return opened(prepare_image(image, ImageConstraints(media_types=frozenset({"image/png"}))))


@ROTATED
@pytest.mark.parametrize("kind", OPTIONS)
def test_a_pil_image_is_as_upright_as_its_file(kind, orientation):
    data = turned(orientation, kind)
    seen = shown(image_from_any(pil(data)))
    assert mean_difference(seen, sketch()) < 5  # a quarter turn is far more
    assert difference(seen, shown(image_from_any(data))) <= 1


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.convert("RGB"),
        lambda image: image.convert("L"),
        lambda image: image.copy(),
        lambda image: image.resize((image.width, image.height)),
        lambda image: image.load() and image,
    ],
    ids=["RGB", "L", "copy", "resized", "loaded"],
)
def test_a_copy_of_it_too(change):
    seen = shown(image_from_any(change(pil(turned(6, "PNG")))))
    assert seen.size == sketch().size


def test_one_that_was_turned_already_is_not_turned_again():
    image = PIL.ImageOps.exif_transpose(pil(turned(6, "JPEG")))
    assert mean_difference(shown(image_from_any(image)), sketch()) < 5


def test_the_callers_image_stays_as_it_is():
    image = pil(turned(6, "PNG"))
    size, orientation = image.size, image.getexif()[0x0112]
    image_from_any(image)
    assert (image.size, image.getexif()[0x0112]) == (size, orientation)


def test_the_local_model_sees_it_upright():
    image = image_from_any(pil(turned(8, "PNG")))
    assert difference(decode(image.data, lambda *size: size).image, sketch()) == 0


@pytest.mark.parametrize("form", ["path", "PIL"])
def test_every_class_sends_it_upright(tmp_path, form):
    (tmp_path / "a.jpg").write_bytes(turned(6, "JPEG"))
    image = tmp_path / "a.jpg" if form == "path" else PIL.Image.open(tmp_path / "a.jpg")
    with ScriptedServer(*["Four fields."] * 4) as server:
        options = server.model_options
        LlamaVision(**options).complete("What?", image_documents=[image])
        LlamaVisionMultiModal(**options).complete("What?", image_documents=[image])
        blocks = [ImageBlock(path=tmp_path / "a.jpg"), TextBlock(text="What?")]
        LlamaVision(**options).chat([ChatMessage(blocks=blocks)])
        BatchAsker("What?", **options)({"image": [image]})
        for request in server.requests:
            (sent,) = request.images
            assert mean_difference(pil(sent), sketch()) < 5
