"""What the process that renders PDFs replies to each request, here without the process."""

import os
import re

import pytest

from llama_vision.images import pdf_worker
from llama_vision.images.pdf_worker import _handle, read_frame, write_frame
from tests.pdfs import pdf_of, text_content, text_pdf

REPORT = text_pdf("one", "two")


@pytest.fixture(autouse=True)
def report():
    assert _handle({"do": "open", "password": None}, REPORT) == ({"page_count": 2}, b"")
    yield
    pdf_worker._open.pop("document").close()


def test_a_page_has_a_size_in_points_and_is_rendered_to_fit():
    size, _ = _handle({"do": "size", "page": 1}, b"")
    fields, rows = _handle({"do": "render", "page": 2, "width": 200, "height": 200}, b"")
    assert max(fields["width"], fields["height"]) == 200
    assert fields["width"] / fields["height"] == pytest.approx(size["width"] / size["height"], rel=0.02)
    assert fields["text"] == "two"
    assert len(rows) == fields["stride"] * fields["height"]
    assert min(rows) < 128 < max(rows) == 255  # ink on white


def test_a_long_text_layer_says_what_is_left_out():
    lines = text_content(*["x" * 98] * 1_100, font_size=0.4)  # pdfium ends each with CR LF
    _handle({"do": "open", "password": None}, pdf_of(lines))
    fields, _ = _handle({"do": "render", "page": 1, "width": 50, "height": 50}, b"")
    assert len(fields["text"].partition("\n(The text goes on: ")[0]) == 100_000
    assert re.search(r"\n\(The text goes on: \d{4} characters more\.\)$", fields["text"])


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"do": "open", "password": None}, "Failed to load document"),
        ({"do": "size", "page": 99}, "Failed to load page"),
        ({"do": "size", "page": None}, "TypeError"),
    ],
)
def test_an_error_is_a_reply_and_the_next_request_is_served(request_, error):
    fields, data = _handle(request_, b"%PDF-1.7 and no more")
    assert error in fields["error"]
    assert data == b""
    assert _handle({"do": "open", "password": None}, REPORT)[0] == {"page_count": 2}


def test_a_frame_that_breaks_off_is_none():
    reading, writing = os.pipe()
    write_frame(writing, {"do": "size"}, b"abc")
    os.write(writing, b"\0\0")
    os.close(writing)
    assert read_frame(reading) == ({"do": "size"}, b"abc")
    assert read_frame(reading) is None
    os.close(reading)
