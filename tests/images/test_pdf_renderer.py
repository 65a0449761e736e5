"""The process that renders PDFs: kept, replaced where it ended, and no danger to the one that asks."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from llama_vision import pages
from llama_vision.core.errors import DocumentError
from llama_vision.images.pdf import PdfFile, PdfRenderer
from tests.pdfs import flate_bomb_pdf, nested_forms_pdf, text_pdf

REPORT = text_pdf("one", "two")


def file(data, name="a.pdf"):
    return PdfFile(data, hashlib.sha256(data).hexdigest(), None, name)


@pytest.fixture
def renderer():
    renderer = PdfRenderer()
    yield renderer
    renderer.close()


def test_one_process_renders_all(renderer):
    assert renderer.page_count(file(REPORT)) == 2
    first = renderer._process.pid
    assert [renderer.render(file(REPORT), number).text for number in (1, 2, 1)] == ["one", "two", "one"]
    assert renderer.render(file(text_pdf("other")), 1).text == "other"
    assert renderer._process.pid == first


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGALRM])
def test_a_process_that_ended_meanwhile_is_replaced(renderer, how):
    assert renderer.render(file(REPORT), 1).text == "one"
    renderer._process.send_signal(how)
    renderer._process.wait()
    assert renderer.render(file(REPORT), 2).text == "two"


def test_a_page_that_takes_too_long_ends_only_its_process():
    renderer = PdfRenderer(timeout_s=0.4)
    bomb = file(nested_forms_pdf(9, 1000), "bomb.pdf")
    began = time.monotonic()
    with pytest.raises(
        DocumentError, match=r"^bomb\.pdf, page 1: it can't be rendered: it takes longer than 0\.4 s"
    ):
        renderer.render(bomb, 1)
    assert time.monotonic() - began < 5
    renderer._timeout_s = 20
    assert renderer.render(file(REPORT), 1).text == "one"
    renderer.close()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process so")
def test_a_page_that_needs_too_much_memory_ends_only_its_process(renderer):
    with pytest.raises(DocumentError, match="crashed, or needed more than 800 MB"):
        renderer.render(file(flate_bomb_pdf(2_000_000_000)), 1)
    assert renderer.render(file(REPORT), 1).text == "one"


def test_threads_get_their_own_pages():
    documents = [text_pdf(f"document {number}") for number in range(6)]
    found = {}

    def ask(number):
        found[number] = [pages(documents[(number + turn) % 6])[0].text for turn in range(6)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [f"document {(number + turn) % 6}" for turn in range(6)] for number in range(6)}


FORKED = """
import os, sys
from llama_vision import pages
from tests.pdfs import text_pdf
assert pages(text_pdf("before"))[0].text == "before"
child = os.fork()
if child == 0:
    os._exit(0 if pages(text_pdf("in the child"))[0].text == "in the child" else 1)
assert pages(text_pdf("in the parent"))[0].text == "in the parent"
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_has_a_renderer_of_its_own():
    command = [sys.executable, "-W", "error", "-c", FORKED]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("0\n", "")


KILLED = """
import os, signal
from llama_vision.images.pdf import RENDERER
from llama_vision import pages
from tests.pdfs import text_pdf
pages(text_pdf("x"))
print(RENDERER._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no SIGKILL")
def test_the_process_ends_with_the_one_that_started_it():
    done = subprocess.run(
        [sys.executable, "-c", KILLED], capture_output=True, text=True, check=False, timeout=60
    )
    renderer = int(done.stdout)
    for _ in range(100):
        try:
            os.kill(renderer, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{renderer}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the renderer is left")
