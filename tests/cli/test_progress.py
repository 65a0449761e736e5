"""The progress line: drawn over itself in a terminal, and nowhere else."""

import io
import sys

import pytest

from llama_vision.cli import main
from llama_vision.cli.progress import ProgressLine
from llama_vision.core.usage import Usage


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(monkeypatch, stderr):
    monkeypatch.setattr(sys, "stderr", stderr)
    with ProgressLine(4) as line:
        for number in range(1, 5):
            line.step(failed=number == 2, num_replies=number, usage=Usage(cost_usd=0.25 * number))
    return stderr.getvalue()


def test_a_terminal_shows_how_far_it_is_at_what_cost(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    first, *_, last = run(monkeypatch, Terminal()).strip("\r\n").split("\r")
    assert first.startswith("1 of 4 | ")
    assert last.startswith("4 of 4 | ")
    assert "a second | 0:00 left | $1.0" in last
    assert last.rstrip().endswith("1 failed")
    assert len(last) == 99


def test_a_file_gets_nothing(monkeypatch):
    assert run(monkeypatch, io.StringIO()) == ""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 0, "usage: llama-vision"),
        (["ask", "no-such-file.png", "What?"], 2, "no-such-file.png"),
        (
            ["ask", "--provider", "deepinfra", "--base-url", "http://localhost:1/v1", "Hi"],
            2,
            "DEEPINFRA_API_KEY",
        ),
    ],
)
def test_a_command_says_how_it_ended(words, code, said, capsys, monkeypatch):
    monkeypatch.delenv("DEEPINFRA_API_KEY", raising=False)
    assert main(words) == code
    assert said in "".join(capsys.readouterr())
