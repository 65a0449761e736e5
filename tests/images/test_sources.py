"""An image from wherever it is."""

import base64
import io
import os
import tempfile
from pathlib import Path

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_vision.core.messages import Image
from llama_vision.images import image_from_any, image_from_base64, image_from_bytes, image_from_url


def encoded_png(**options):
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (7, 5), "orange").save(buffer, "PNG", **options)
    return buffer.getvalue()


PNG = encoded_png()
EXPECTED = Image(data=PNG, media_type="image/png")
BASE64 = base64.b64encode(PNG).decode()
# All 64 letters occur, so that the two alphabets differ; an image only to the one who sniffs.
ODD = PNG[:8] + bytes(range(256)) + b"!"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "an image.png"
    path.write_bytes(PNG)
    return path


@pytest.mark.parametrize("form", [Path, str])
def test_a_path(path, form):
    assert image_from_any(form(path)) == EXPECTED


def test_a_path_under_the_users_home(path, monkeypatch):
    monkeypatch.setenv("HOME", str(path.parent))
    assert image_from_any("~/an image.png") == EXPECTED


def test_a_wrong_file_name_does_not_matter(tmp_path):
    path = tmp_path / "picture.jpg"
    path.write_bytes(PNG)
    assert image_from_any(path).media_type == "image/png"


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview, lambda data: memoryview(b"ab" + data)[2:]])
def test_encoded_bytes(form):
    image = image_from_any(form(PNG))
    assert image == EXPECTED
    assert type(image.data) is bytes


def test_an_open_file_twice(path):
    with path.open("rb") as file:
        assert image_from_any(file) == EXPECTED
        assert image_from_any(file) == EXPECTED


def test_a_file_in_memory_that_was_just_written():
    buffer = io.BytesIO()
    buffer.write(PNG)
    assert image_from_any(buffer) == EXPECTED


def test_a_temporary_file():
    with tempfile.NamedTemporaryFile() as file:
        file.write(PNG)
        assert image_from_any(file) == EXPECTED


def test_a_pipe_which_can_not_be_wound_back():
    reading, writing = os.pipe()
    os.write(writing, PNG)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert image_from_any(pipe) == EXPECTED


@pytest.mark.parametrize(
    "text",
    [
        BASE64,
        BASE64.encode(),
        BASE64.rstrip("="),
        base64.encodebytes(PNG),
        base64.encodebytes(PNG).decode().replace("\n", "\r\n"),
        base64.urlsafe_b64encode(PNG).decode(),
        f"  {BASE64}\n",
        BASE64 + "==",
    ],
    ids=[
        "text",
        "bytes",
        "no padding",
        "lines",
        "lines with CR",
        "url-safe",
        "white space",
        "too much padding",
    ],
)
def test_base64(text):
    assert image_from_base64(text) == EXPECTED


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("size", [-1, -2, None])
def test_base64_with_every_letter_in_every_alphabet_and_length(encode, size):
    data = ODD[:size]
    assert image_from_base64(encode(data).rstrip(b"=")).data == data


@pytest.mark.parametrize(
    "head",
    [
        "data:image/png;base64,",
        "DATA:IMAGE/PNG;BASE64,",
        "data:image/jpeg;base64,",
        "data:;base64,",
        "data:text/plain;charset=utf-8;base64,",
        "\n data:image/png;name=a.png;base64,",
    ],
)
@pytest.mark.parametrize(
    "content", [BASE64, BASE64.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")]
)
def test_a_data_url_whatever_its_label(head, content):
    assert image_from_url(head + content) == EXPECTED


@pytest.mark.parametrize("head", ["data:image/png,", "data:,", "data:image/png;charset=x,"])
def test_a_data_url_without_base64(head):
    assert image_from_url(head + "".join(f"%{byte:02X}" for byte in PNG)) == EXPECTED


@pytest.mark.parametrize(
    "url", ["https://example.com/a.png?x=1", "http://example.com", "HTTPS://EXAMPLE.COM/a"]
)
@pytest.mark.parametrize("read", [image_from_any, image_from_url, lambda url: image_from_url(f" {url}\n")])
def test_a_web_address_is_passed_on(read, url):
    assert read(url) == Image(url=url)


def test_a_data_url_is_taken_by_image_from_any():
    assert image_from_any(f"data:image/png;base64,{BASE64}") == EXPECTED


@pytest.mark.parametrize(
    ("mode", "kept"),
    [
        ("1", "1"),
        ("L", "L"),
        ("LA", "LA"),
        ("La", "LA"),
        ("P", "P"),
        ("PA", "RGBA"),
        ("RGB", "RGB"),
        ("RGBA", "RGBA"),
        ("RGBa", "RGBA"),
        ("RGBX", "RGB"),
        ("CMYK", "RGB"),
        ("YCbCr", "RGB"),
        ("HSV", "RGB"),
        ("LAB", "RGB"),
        ("I;16", "I;16"),
        ("I", "RGB"),
        ("F", "RGB"),
    ],
)
def test_a_pil_image_in_any_mode(mode, kept):
    image = image_from_any(PIL.Image.new(mode, (7, 5)))
    assert image.media_type == "image/png"
    with PIL.Image.open(io.BytesIO(image.data)) as opened:
        assert (opened.mode, opened.size) == (kept, (7, 5))


def test_a_pil_images_colours_stay():
    image = image_from_any(PIL.Image.new("CMYK", (1, 1), (0, 255, 255, 0)))
    with PIL.Image.open(io.BytesIO(image.data)) as opened:
        assert opened.getpixel((0, 0)) == (255, 0, 0)


def test_a_pil_image_that_was_opened_from_a_file(path):
    with PIL.Image.open(path) as pil_image:
        image = image_from_any(pil_image)
    with PIL.Image.open(io.BytesIO(image.data)) as opened:
        assert opened.getpixel((3, 3)) == (255, 165, 0)


def test_an_image_is_taken_as_it_is():
    assert image_from_any(EXPECTED) is EXPECTED


@pytest.mark.parametrize("source", [EXPECTED, PNG, io.BytesIO(PNG), PIL.Image.new("L", (2, 2)), "https://example.com",
                                    f"data:;base64,{BASE64}"], ids=lambda source: type(source).__name__)  # fmt: skip
def test_how_closely_to_look_is_kept_from_every_source(source):
    assert image_from_any(source, detail="low").detail == "low"
    assert image_from_any(source).detail is None


def test_how_closely_to_look_is_kept_from_a_path(path):
    assert image_from_any(path, detail="high").detail == "high"


def test_a_detail_said_before_stays():
    image = image_from_bytes(PNG, detail="high")
    assert image_from_any(image).detail == "high"


@settings(deadline=None)
@given(
    st.binary(),
    st.sampled_from([base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes]),
    st.booleans(),
)
def test_any_bytes_come_back_from_base64(rest, encode, padded):
    data = PNG[:8] + rest
    text = encode(data) if padded else encode(data).replace(b"=", b"")
    assert image_from_base64(text).data == data
    assert image_from_url(f"data:image/png;base64,{text.decode()}").data == data
