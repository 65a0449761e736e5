"""What a notebook gets to see, from a real kernel."""

import re

import pytest

from tests.jupyter.kernels import run_cells

SLOWLY = """
import time
from llama_vision.jupyter import *
from llama_vision.demo import SAMPLE_IMAGES

def pieces():
    for number in range(100):
        time.sleep(0.005)
        yield f"{number} <script>alert({number})</script> "
"""
CELLS = [
    SLOWLY,
    "answer = show(pieces())",
    "show(pieces())",
    "answer",
    "import asyncio\nasync def apieces():\n    for piece in pieces():\n        yield piece\nawait show(apieces())",
    "show(iter('abc'), notebook=False)",
    "show_images(SAMPLE_IMAGES, captions=['<script>1</script>', 'b', 'c'])",
    "show_providers()",
    "show_answers({'<b>': answer, 'failed': ValueError('<i>')})",
    "import sys\nprint('ipywidgets' in sys.modules)",
    "def broken():\n    yield 'One'\n    raise ConnectionError\ntry:\n    show(broken())\nexcept ConnectionError:\n    pass",
    "from llama_vision import Reply, find_provider\nReply('<script>')",
    "find_provider('deepinfra')",
]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    outputs, kinds = run_cells(tmp_path_factory.mktemp("notebook"), *CELLS)
    return dict(zip(CELLS, zip(outputs, kinds, strict=True), strict=True))


def shown_by(ran, begin):
    """The only output of the cell that begins so, and the kinds of messages that made it."""
    (cell,) = [source for source in CELLS if source.startswith(begin)]
    (output,), kinds = ran[cell]
    return output, kinds


@pytest.mark.parametrize("begin", ["answer =", "show(pieces())", "import asyncio"])
@pytest.mark.slow
def test_a_stream_grows_in_place(ran, begin):
    output, kinds = shown_by(ran, begin)
    html = output.data["text/html"]
    assert "99 &lt;script&gt;alert(99)&lt;/script&gt;" in html
    assert "<script" not in html
    assert re.search(r"tokens not told, cost not told, \d\.\d\d s \(first token after", html)
    assert output.data["text/plain"].startswith("0 <script>alert(0)</script> 1 ")
    assert kinds.count("display_data") == 1
    assert "clear_output" not in kinds  # which would flicker
    assert "execute_result" not in kinds  # the cell's last value is what was shown


def test_it_is_drawn_twenty_times_a_second_at_most(ran):
    output, kinds = shown_by(ran, "answer =")
    seconds = float(re.search(r"told, ([\d.]+) s \(", output.data["text/html"])[1])
    assert 3 <= kinds.count("update_display_data") <= 20 * seconds + 2


def test_a_later_cell_shows_it_again(ran):
    (output,), _ = ran["answer"]
    assert "99 &lt;script&gt;" in output.data["text/html"]


def test_plain_text_on_demand(ran):
    outputs, _ = ran["show(iter('abc'), notebook=False)"]
    assert {output.output_type for output in outputs} == {"stream"}
    assert "".join(output.text for output in outputs).startswith("abc\n[tokens not told")


def test_images(ran):
    output, _ = shown_by(ran, "show_images")
    assert output.data["text/html"].count("<img ") == 3
    assert "<script" not in output.data["text/html"]
    assert output.data["text/plain"] == "[circle] <script>1</script>\n[shapes] b\n[sign] c"


def test_providers(ran):
    output, _ = shown_by(ran, "show_providers")
    assert "none found in DEEPINFRA_TOKEN" in output.data["text/html"]
    assert "none found in DEEPINFRA_TOKEN" in output.data["text/plain"]


def test_answers(ran):
    output, _ = shown_by(ran, "show_answers")
    assert "<b>" not in output.data["text/html"]
    assert "ValueError: &lt;i&gt;" in output.data["text/html"]


def test_no_widgets_are_needed(ran):
    output, _ = shown_by(ran, "import sys")
    assert output.text == "False\n"


def test_what_came_of_a_broken_stream_stays(ran):
    output, _ = shown_by(ran, "def broken")
    assert "One" in output.data["text/html"]
    assert "broken off by ConnectionError" in output.data["text/html"]


def test_records_and_replies_show_themselves(ran):
    reply, _ = shown_by(ran, "from llama_vision import Reply")
    assert "&lt;script&gt;" in reply.data["text/html"]
    provider, _ = shown_by(ran, "find_provider")
    assert "DEEPINFRA_TOKEN" in provider.data["text/html"]
