"""`llama-vision caption` over folders with documents: a line for each page, resumable; other files are named."""

import json
import re
import signal
import subprocess
import threading
from collections import Counter

import pytest

from llama_vision.captions import ImageFile, find_images, list_pages
from llama_vision.cli import main
from tests.cli.test_caption import CLEAN, command, draw, naming, slowly
from tests.images.damaged import tiff_of
from tests.images.images import sketch
from tests.pdfs import color_content, pdf_of, text_pdf


def colors(count, first=0):
    return pdf_of(*[color_content(number, 255 - number % 256, 90) for number in range(first, first + count)])


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "documents"
    folder.mkdir()
    return folder


@pytest.fixture
def caption(emulator, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DEEPINFRA_TOKEN", emulator.api_key)
    emulator.always(naming)
    out = tmp_path / "captions.jsonl"

    def run(*words, path=folder):
        hosted = ("--provider", "deepinfra", "--base-url", emulator.base_url)
        code = main(["caption", str(path), "--out", str(out), *hosted, *words])
        lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
        return code, lines, capsys.readouterr().err

    return run


def test_a_line_for_each_page(caption, folder):
    (folder / "report.pdf").write_bytes(colors(3))
    (folder / "scan.tiff").write_bytes(tiff_of(sketch(), sketch(40, 30)))
    draw(folder, 1, 200)
    code, lines, said = caption()
    assert code == 0
    found = {(line["file"], line.get("page")): line["caption"] for line in lines}
    assert set(found) == {
        *[("report.pdf", 1), ("report.pdf", 2), ("report.pdf", 3)],
        *[("scan.tiff", 1), ("scan.tiff", 2), ("200.png", None)],
    }
    assert found["report.pdf", 3] == "Red is 2."
    assert "6 captions, 6 new" in said
    assert "6 captions, 0 new" in caption()[2]


def test_a_single_document(caption, folder):
    path = folder / "report.pdf"
    path.write_bytes(colors(2))
    assert sorted((line["file"], line["page"]) for line in caption(path=path)[1]) == [
        ("report.pdf", 1),
        ("report.pdf", 2),
    ]


def test_equal_pages_are_asked_about_once_and_each_has_its_line(caption, folder, emulator):
    (folder / "a.pdf").write_bytes(pdf_of(color_content(7, 7, 7), color_content(7, 7, 7)))
    (folder / "b.pdf").write_bytes(pdf_of(color_content(7, 7, 7)))
    _, lines, _ = caption()
    assert sorted((line["file"], line["page"]) for line in lines) == [
        ("a.pdf", 1),
        ("a.pdf", 2),
        ("b.pdf", 1),
    ]
    assert len(emulator.requests) == 1


def test_a_changed_page_alone_is_asked_about_again(caption, folder, emulator):
    (folder / "a.pdf").write_bytes(colors(3))
    caption()
    (folder / "a.pdf").write_bytes(
        pdf_of(color_content(0, 255, 90), color_content(50, 50, 50), color_content(2, 253, 90))
    )
    assert "3 captions, 1 new" in caption()[2]
    assert len(emulator.requests) == 4


def test_other_files_are_passed_over_by_name(caption, folder):
    draw(folder, 1)
    (folder / "sub").mkdir()
    for name in ("notes.md", "sub/drawing.svg"):
        (folder / name).write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    code, lines, said = caption()
    assert (code, len(lines)) == (0, 1)
    assert "2 files passed over: notes.md, sub/drawing.svg\n" in said
    for number in range(12):
        (folder / f"{number:02}.txt").touch()
    assert re.search(r"^14 files passed over: 00\.txt, .*, 09\.txt and 4 more$", caption()[2], re.MULTILINE)


def test_a_document_that_can_not_be_opened_is_listed_and_the_others_captioned(caption, folder):
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 rubbish")
    (folder / "empty.pdf").touch()
    (folder / "fine.pdf").write_bytes(colors(1))
    (folder / "secret.pdf").write_bytes(text_pdf("secret", password="pw"))
    code, lines, said = caption()
    assert (code, [line["file"] for line in lines]) == (1, ["fine.pdf"])
    assert "broken.pdf can't be opened" in said
    assert "secret.pdf is encrypted" in said
    assert "empty.pdf" in said
    assert "3 of 4 images have no caption" in said
    assert "secret.pdf" not in caption("--password", "pw")[2]


def test_documents_are_found_only_where_they_are_wanted(folder):
    path = folder / "a.pdf"
    path.write_bytes(colors(2))
    assert find_images(folder).images == []
    assert find_images(folder).skipped == [path]
    found = find_images(folder, documents=True)
    assert list_pages(found.images) == [ImageFile(path, 1), ImageFile(path, 2)]


@pytest.mark.slow
def test_300_pages_killed_twice_and_resumed_ask_nothing_twice_but_what_was_in_flight(
    emulator, folder, tmp_path
):
    for number in range(6):
        (folder / f"{number}.pdf").write_bytes(
            pdf_of(*[color_content(50 * number % 256 + page, 255 - page, 90 + number) for page in range(50)])
        )
    out, concurrency = tmp_path / "captions.jsonl", 4
    emulator.always(slowly)
    environment = {**CLEAN, "DEEPINFRA_TOKEN": emulator.api_key}
    words = command(emulator, folder, out, "--concurrency", concurrency)
    for stop_at in (60, 170):
        process = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(emulator.requests) < stop_at:
            threading.Event().wait(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len({(line["file"], line["page"]) for line in lines}) == 300
    asked = Counter(request.images[0] for request in emulator.requests)
    assert len(asked) == 300
    assert sum(asked.values()) <= 300 + 2 * concurrency
    assert max(asked.values()) <= 3
