"""What a file is, told from its first bytes."""

import io

import PIL.Image
import pytest

from llama_vision.core.errors import ImageError
from llama_vision.images.decode import decode
from llama_vision.images.media_type import sniff_media_type
from tests.images.images import difference, encoded, mean_difference, needs_avif, sketch


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
        (b"\x00\x00\x00\x1cftypmif1\0\0\0\0mif1avifmiaf", "image/avif"),
        (b"\x00\x00\x00\x18ftypmif1\0\0\0\0mif1miaf\0\0meta infe av01", "image/avif"),
        (b"\x00\x00\x00\x18ftypmsf1\0\0\0\0msf1hevc", "image/heic"),
        (b"\x00\x00\x00\x18ftypisom\0\0\0\0avisiso8", "image/avif"),
        *(
            (b"\x00\x00\x00\x18ftyp" + brand, "image/heic")
            for brand in (b"hevc", b"heim", b"heis", b"hevx", b"msf1")
        ),
        (b"II+\x00\x08\x00", "image/tiff"),
        (b"MM\x00+\x00\x08", "image/tiff"),
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
        (b"\xef\xbb\xbf<svg/>", "it looks like SVG"),
        ("\ufeff<?xml version='1.0'?>\n<svg/>".encode("utf-16-le"), "it looks like SVG"),
        (b"<!-- " + b"x" * 900 + b" --><svg/>", "it looks like SVG"),
        (b"<!DOCTYPE html><style>a {}</style><h1>Not  here</h1>", "in place of the image: 'Not here'"),
        (
            b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
            "it looks like XML, perhaps an error of the server in place of the image: 'AccessDenied'",
        ),
        (b"\xef\xbb\xbf<Error><Code>NoSuchKey</Code></Error>", "'NoSuchKey'"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "it is JPEG XL, which is not read here"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "it is JPEG 2000"),
        (b"\x00\x00\x01\x00\x01\x00", "it is an icon (ICO)"),
        (b"8BPS\0\1", "it is a Photoshop document"),
        (b"P6\n7 5\n255\n", "it is PNM"),
        (b"P6 hello", "it is PNM"),
        (b"P6hello", "it begins with b'P6hello'"),
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


@needs_avif
def test_avif_in_a_container_of_another_name_is_opened():
    data = encoded(sketch(), "AVIF", quality=95)
    renamed = data[:8] + b"mif1" + data[12:]
    assert mean_difference(decode(renamed, lambda *size: size).image, sketch()) < 5


def test_a_bigtiff_is_opened():
    data = encoded(sketch(), "TIFF", big_tiff=True)
    assert sniff_media_type(data) == "image/tiff"
    assert difference(decode(data, lambda *size: size).image, sketch()) == 0


def test_heic_without_a_decoder_names_what_is_missing():
    if "HEIF" in PIL.Image.OPEN:
        pytest.skip("pillow-heif is installed")
    with pytest.raises(
        ImageError, match=r"This is HEIC, .* pip install pillow-heif, or save it as JPEG or PNG"
    ):
        decode(b"\x00\x00\x00\x18ftyphevc" + bytes(100), lambda *size: size)


def test_a_refusal_shows_only_the_beginning():
    with pytest.raises(ImageError) as caught:
        sniff_media_type(b"x" * 100_000)
    assert len(str(caught.value)) < 200
