"""What can't be an image is refused, and the text names the culprit."""

import io
from pathlib import Path

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_vision.core.errors import ImageError
from llama_vision.images import image_from_any, image_from_base64, image_from_url

# Half a surrogate pair included, which no encoding can hold.
ANY_TEXT = st.text(st.characters())


def refusal(call, *args):
    with pytest.raises(ImageError) as caught:
        call(*args)
    return str(caught.value)


@pytest.mark.parametrize("form", [str, Path])
def test_a_missing_file(tmp_path, form):
    text = refusal(image_from_any, form(tmp_path / "no.png"))
    assert "no.png' can't be read: No such file or directory" in text


def test_a_folder(tmp_path):
    assert f"{tmp_path.name}' can't be read: Is a directory" in refusal(image_from_any, tmp_path)


@pytest.mark.parametrize(
    ("content", "looks_like"),
    [
        (b"hello", "its first bytes are those of no image format"),
        (b"", "it is empty"),
        (b"<svg/>", "SVG"),
        (b"<!doctype html>", "web page"),
        (b"%PDF-1.4", "PDF"),
    ],
)
def test_a_file_that_is_no_image_is_named(tmp_path, content, looks_like):
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    text = refusal(image_from_any, path)
    assert text.startswith(f"{path}: This is not an image")
    assert looks_like in text


def test_text_that_is_no_path_is_shown_in_short():
    text = refusal(image_from_any, "iVBORw0KGgo" * 1000)
    assert "iVBORw0KGgo" in text
    assert len(text) < 300


@pytest.mark.parametrize("path", ["a\0b.png", "~nobody-of-this-name/a.png", "\ud83e.png"])
def test_a_path_that_can_not_be_one(path):
    assert f"{path!r} can't be read" in refusal(image_from_any, path)


@pytest.mark.parametrize("url", ["ftp://example.com/a.png", "file:///etc/passwd", "javascript:alert(1)", "/etc/passwd",
                                 "", "data:image/png;base64", "data", "//example.com/a.png"])  # fmt: skip
def test_other_addresses_are_refused_and_nothing_is_read(url):
    text = refusal(image_from_url, url)
    assert f"http(s) or data URL, and this is {url!r}" in text


def test_other_addresses_are_no_paths_either():
    assert "can't be read: No such file" in refusal(image_from_any, "ftp://example.com/a.png")


def test_a_long_address_is_shown_in_short():
    assert len(refusal(image_from_url, "gopher://" + "x" * 10_000)) < 500


@pytest.mark.parametrize("text", ["iVBOR!", "iVBORw0KGgo=iVBOR", "ä", "a", "a\ud83e", b"\xff"], ids=ascii)
def test_what_is_no_base64(text):
    assert "base64 text can't be read" in refusal(image_from_base64, text)


@pytest.mark.parametrize("text", ["", " \n", "="])
def test_empty_base64(text):
    assert "it is empty" in refusal(image_from_base64, text)


@pytest.mark.parametrize("url", ["data:,", "data:image/png;base64,"])
def test_an_empty_data_url(url):
    assert "it is empty" in refusal(image_from_url, url)


@pytest.mark.parametrize("head", ["data:,", "data:;base64,"])
def test_a_data_url_that_no_bytes_can_hold(head):
    assert refusal(image_from_url, head + "\ud83e")


def test_a_label_does_not_make_a_image():
    assert "it begins with b'hello'" in refusal(image_from_url, "data:image/png,hello")


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n", b"words"])
def test_a_file_open_for_text(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with path.open() as file:
        assert "open for text; open it with mode 'rb'" in refusal(image_from_any, file)


def test_text_in_memory():
    assert "open for text" in refusal(image_from_any, io.StringIO("words"))


def test_a_closed_file():
    file = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    file.close()
    assert "The open file can't be read: I/O operation on closed file" in refusal(image_from_any, file)


class Figure:
    """Something with `save` that is no PIL image."""

    def save(self, path):
        raise AssertionError(path)


class Reader:
    """Something with `read` that is no file of Python's own."""

    def __init__(self, content):
        self.content = content

    def seekable(self):
        return False

    def read(self):
        if isinstance(self.content, Exception):
            raise self.content
        return self.content


@pytest.mark.parametrize(
    ("content", "culprit"),
    [
        ("words", "gives str, not bytes"),
        (None, "gives NoneType, not bytes"),
        (OSError(5, "Input/output error"), "can't be read: Input/output error"),
        (b"words", "it begins with b'words'"),
    ],
)
def test_a_reader_that_gives_no_image(content, culprit):
    assert culprit in refusal(image_from_any, Reader(content))


@pytest.mark.parametrize("value", [None, 7, 1.5, [b"x"], {"url": "https://example.com"}, object(), Figure()])
def test_another_type_is_named(value):
    text = refusal(image_from_any, value)
    assert text.startswith(f"A {type(value).__name__} is not an image. Give a path, bytes")


def test_a_pil_image_without_pixels():
    assert "The PIL image (RGB, (0, 3)) can't be used" in refusal(
        image_from_any, PIL.Image.new("RGB", (0, 3))
    )


def test_a_pil_image_whose_file_is_cut_off():
    buffer = io.BytesIO()
    PIL.Image.effect_noise((64, 64), 50).save(buffer, "PNG")
    with PIL.Image.open(io.BytesIO(buffer.getvalue()[:200])) as image:
        assert "The PIL image (L, (64, 64)) can't be used" in refusal(image_from_any, image)


def only_image_errors(call, *args):
    try:
        return call(*args)
    except ImageError as error:
        return str(error)


@settings(deadline=None)
@given(ANY_TEXT | st.binary())
def test_any_base64_gives_an_image_or_an_image_error(text):
    assert only_image_errors(image_from_base64, text)


@settings(deadline=None)
@given(
    st.sampled_from(["", "data:", "data:,", "data:;base64,", "data:image/png;base64,%", "http://"]), ANY_TEXT
)
def test_any_address_gives_an_image_or_an_image_error(head, rest):
    assert only_image_errors(image_from_url, head + rest)
