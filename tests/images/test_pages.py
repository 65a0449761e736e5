"""`llama_vision.pages`: pages of PDFs and TIFFs as images, with their text, number and size."""

import base64
import io
import os
import pickle
import subprocess
import sys

import PIL.Image
import pytest
from PIL.TiffImagePlugin import AppendingTiffWriter

import llama_vision
from llama_vision import Document, Page, pages
from llama_vision.core.errors import DocumentError, ImageError
from llama_vision.images.fetch_policy import FetchPolicy
from tests.images.damaged import tiff_of
from tests.images.image_server import ImageServer, answer
from tests.images.images import encoded, photo, sketch
from tests.pdfs import color_content, image_pdf, pdf_of, text_content, text_pdf

REPORT = text_pdf("Revenue 1999", "Costs", "Profit")
RED, GREEN = (220, 20, 60), (20, 160, 60)
CLOSED = FetchPolicy(private_networks=True)


def pixels(page):
    return PIL.Image.open(io.BytesIO(page.image.data)).convert("RGB")


def test_a_page_has_image_text_number_size_and_file(tmp_path):
    path = tmp_path / "report.pdf"
    path.write_bytes(REPORT)
    found = pages(path)
    assert [(page.number, page.page_count, page.text) for page in found] == [
        (1, 3, "Revenue 1999"),
        (2, 3, "Costs"),
        (3, 3, "Profit"),
    ]
    first = found[0]
    assert (first.width, first.height, first.source) == (595, 842, str(path))
    assert first.label == "report.pdf, page 1 of 3"
    assert (first.image.media_type, pixels(first).size) == ("image/png", (791, 1120))
    assert pickle.loads(pickle.dumps(first)) == first  # noqa: S301 - made here


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((595, 842), (791, 1120)),
        ((842, 595), (1120, 791)),
        ((100, 400), (560, 2240)),
        ((252, 144), (1120, 640)),
        ((14_400, 14_400), (1120, 1120)),
        ((14_400, 1), (2240, 1)),
    ],
)
def test_a_page_is_rendered_at_the_largest_size_that_the_model_sees(size, expected):
    (page,) = pages(text_pdf("x", size=size))
    assert pixels(page).size == expected
    assert (page.width, page.height) == size


def test_a_turned_page_is_upright():
    (page,) = pages(pdf_of(b"1 0 0 rg 0 0 300 842 re f", user_page=b"/Rotate 90"))
    assert (page.width, page.height) == (842, 595)
    assert pixels(page).getpixel((500, 20)) == (255, 0, 0)
    assert pixels(page).getpixel((500, 770)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("chosen", "numbers"),
    [
        (None, [1, 2, 3]),
        ("1-3", [1, 2, 3]),
        ("2-", [2, 3]),
        ("-2", [1, 2]),
        (" 3, 1 ", [3, 1]),
        ("2,2", [2]),
        (2, [2]),
        ([3, 1], [3, 1]),
        (range(1, 3), [1, 2]),
    ],
)
def test_pages_are_chosen(chosen, numbers):
    assert [page.number for page in pages(REPORT, chosen)] == numbers


@pytest.mark.parametrize("chosen", ["4", "0", "3-1", "2-4", [1, 9]])
def test_a_page_that_there_is_not_is_named(chosen):
    with pytest.raises(DocumentError, match="document has 3 pages, and pages="):
        pages(REPORT, chosen)


@pytest.mark.parametrize("chosen", [0, -1, [1, -1]])
def test_pages_are_numbered_from_1(chosen):
    with pytest.raises(DocumentError, match="numbered from 1"):
        pages(REPORT, chosen)


@pytest.mark.parametrize("chosen", ["", "x", "1,,2", "1 2", "1--2", "¹"])
def test_a_range_that_is_none_is_refused(chosen):
    with pytest.raises(DocumentError, match=r"pages='.*'"):
        pages(REPORT, chosen)


def test_more_pages_than_the_limit_are_refused_before_any_is_rendered():
    with pytest.raises(DocumentError, match=r"3 pages .* limit of 2.*pages='1-2'"):
        pages(REPORT, max_pages=2)
    assert len(pages(REPORT, max_pages=None)) == 3


def test_every_kind_of_source(tmp_path, monkeypatch):
    path = tmp_path / "a b.pdf"
    path.write_bytes(REPORT)
    data_url = "data:application/pdf;base64," + base64.b64encode(REPORT).decode()
    monkeypatch.setenv("HOME", str(tmp_path))
    with path.open("rb") as opened:
        sources = (path, str(path), REPORT, bytearray(REPORT), memoryview(REPORT), opened, data_url)
        counts = [
            len(pages(source))
            for source in (*sources, "~/a b.pdf", Document(data=REPORT), io.BytesIO(REPORT))
        ]
    assert counts == [3] * 10
    with os.scandir(tmp_path) as entries:
        assert pages(next(entries), 1)[0].label == "a b.pdf, page 1 of 3"


def test_a_url_is_downloaded_from_public_addresses_only():
    with ImageServer() as server:
        server.answers["/r/report.pdf?key=secret"] = [answer(REPORT)]
        url = f"http://127.0.0.1:{server.port}/r/report.pdf?key=secret"
        with pytest.raises(ImageError, match="loopback"):
            pages(url)
        (page,) = pages(url, 2, fetch=CLOSED)
    assert page.label == "report.pdf, page 2 of 3"
    assert "secret" not in page.source


def test_an_encrypted_file_needs_its_password_which_is_told_to_nobody():
    secret = text_pdf("Secret plans", password="sesame")
    with pytest.raises(DocumentError, match=r"encrypted\. Pass its password: password="):
        pages(secret)
    with pytest.raises(DocumentError, match="the password is wrong") as caught:
        pages(secret, password="open")
    assert "open" not in str(caught.value)
    assert pages(secret, password="sesame")[0].text == "Secret plans"
    assert "sesame" not in repr(Document(data=secret, password="sesame"))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (REPORT[:200], "cut off, damaged or no PDF"),
        (b"%PDF-1.7\nrubbish", "cut off, damaged or no PDF"),
        (b"", "neither a PDF nor a TIFF"),
        (b"PK\3\4", "neither a PDF nor a TIFF"),
        (encoded(sketch()), "is an image, not a document"),
        (text_pdf(), "no pages|damaged"),
        (tiff_of(sketch(), sketch())[:3000], "page 1"),
    ],
)
def test_what_is_no_document_is_refused(data, why):
    with pytest.raises(DocumentError, match=why):
        pages(data)


def test_what_stands_before_the_header_is_no_matter():
    assert pages(b"\r\njunk\n" + REPORT, 1)[0].text == "Revenue 1999"


def test_pages_of_a_tiff():
    found = pages(tiff_of(sketch(), PIL.Image.new("L", (40, 60), 77), photo(1500, 1000)))
    assert [(page.number, page.page_count, page.text) for page in found] == [
        (1, 3, ""),
        (2, 3, ""),
        (3, 3, ""),
    ]
    assert [(page.width, page.height) for page in found] == [(90, 60), (40, 60), (1500, 1000)]
    assert [pixels(page).size for page in found] == [(90, 60), (40, 60), (1120, 746)]
    assert pixels(found[1]).getpixel((5, 5)) == (77, 77, 77)


@pytest.mark.parametrize("subfile_type", [1, 4])
def test_a_preview_in_a_tiff_is_no_page(subfile_type):
    buffer = io.BytesIO()
    with AppendingTiffWriter(buffer) as writer:
        sketch().save(writer, "TIFF")
        writer.newFrame()
        sketch(9, 6).save(writer, "TIFF", tiffinfo={254: subfile_type})
    assert len(pages(buffer.getvalue())) == 1


def test_equal_pages_have_equal_digests_whatever_their_file():
    one = pages(pdf_of(color_content(*RED), color_content(*GREEN), color_content(*RED)))
    other = pages(pdf_of(color_content(*GREEN)), lossless=False)
    assert one[0].digest == one[2].digest != one[1].digest == other[0].digest


def test_a_scan_is_smaller_where_it_need_not_be_lossless():
    noise = photo(500, 700)
    scan = image_pdf(500, 700, [noise.tobytes()])
    (exact,), (small,) = pages(scan), pages(scan, lossless=False)
    assert (exact.image.media_type, small.image.media_type) == ("image/png", "image/jpeg")
    assert len(small.image.data) < len(exact.image.data) / 3
    assert pages(REPORT, 1, lossless=False)[0].image.media_type == "image/png"


def test_text_is_as_others_write_it():
    lines = pdf_of(text_content("Zürich", "second line", font_size=12))
    assert pages(lines)[0].text == "Zürich\nsecond line"


def test_a_very_long_text_says_that_it_goes_on():
    (page,) = pages(pdf_of(text_content(*["word " * 40] * 600, font_size=1)))
    assert page.text.endswith("characters more.)")
    assert 99_000 < len(page.text) < 100_200


def test_names_are_public():
    assert {"Page", "pages", "Document"} <= set(llama_vision.__all__)
    assert Page.__module__ == "llama_vision.images.documents"


WITHOUT = """
import sys
sys.modules["pypdfium2"] = None
import importlib.util
from llama_vision import pages
try:
    pages(b"%PDF-1.7")
except Exception as error:
    print(type(error).__name__, error)
"""


def test_without_pypdfium2_the_error_says_what_to_install():
    command = [sys.executable, "-W", "error", "-c", WITHOUT]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert (
        said == "MissingDependencyError PDFs need pypdfium2. Install it: pip install 'llama-vision[pdf]'.\n"
    )
