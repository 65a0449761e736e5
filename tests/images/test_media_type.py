"""What a file is, told from its first bytes."""

import io

import PIL.Image
import pytest

from llama_vision.core.errors import ImageError
from llama_vision.images.media_type import sniff_media_type
from tests.images.images import needs_avif


@pytest.mark.parametrize(
    "media_type", ["png", "jpeg", "gif", "webp", "bmp", "tiff", pytest.param("avif", marks=needs_avif)]
)
def test_a_real_file_is_known(media_type):
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (4, 3), "red").save(buffer, media_type)
    assert sniff_media_type(buffer.getvalue()) == f"image/{media_type}"


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (b"GIF89a", "image/gif"),
        (b"MM\x00*\x00", "image/tiff"),
        (b"\x00\x00\x00\x18ftypheic", "image/heic"),
        (b"\x00\x00\x00\x18ftypheix", "image/heic"),
        (b"\x00\x00\x00\x18ftypmif1", "image/heic"),
        (b"\x00\x00\x00\x18ftypavis", "image/avif"),
    ],
)
def test_a_beginning_is_known(head, media_type):
    assert sniff_media_type(head) == media_type


@pytest.mark.parametrize(
    ("data", "looks_like"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "it looks like SVG"),
        (b"\n <?XML version='1.0'?><svg/>", "it looks like SVG"),
        (b"<!DOCTYPE html><title>404</title>", "it looks like a web page"),
        (b"<html>", "it looks like a web page"),
        (b"%PDF-1.7", "it looks like a PDF"),
        (b"hello world", "it begins with b'hello wo'"),
        (b"\x89PNG", "it begins with"),
        (b"RIFF\x00\x00\x00\x00WAVE", "it begins with b'RIFF"),
        (b"\x00\x00\x00\x18ftypmp42", "it begins with"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_image_is_refused_with_what_it_looks_like(data, looks_like):
    with pytest.raises(ImageError) as caught:
        sniff_media_type(data)
    assert looks_like in str(caught.value)
    assert "Give a PNG, JPEG, WebP or GIF." in str(caught.value)


def test_a_refusal_shows_only_the_beginning():
    with pytest.raises(ImageError) as caught:
        sniff_media_type(b"x" * 100_000)
    assert len(str(caught.value)) < 200
