"""Reads README and docs: their code blocks, and scripts made of them that keep the lines' numbers."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md"))

_FENCE = re.compile(r"^```(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = "\n----- block {} -----"


@dataclass(frozen=True)
class Block:
    """A code block.

    `line` is that of its fence, counted from 1, and `end` the place in the page where it ends.
    """

    language: str
    code: str
    line: int
    end: int


def blocks(path):
    """Find all code blocks of a page."""
    page = path.read_text(encoding="utf-8")
    return [
        Block(found[1], found[2], page.count("\n", 0, found.start()) + 1, found.end())
        for found in _FENCE.finditer(page)
    ]


def python_blocks(path):
    return [block for block in blocks(path) if block.language == "python"]


def commands(path):
    """Find what is to be typed into a shell, without remarks and with continued lines put together."""
    for block in blocks(path):
        if block.language == "sh":
            for line in block.code.replace("\\\n", " ").splitlines():
                if command := re.sub(r"(^|\s)#.*", "", line).strip():
                    yield command


def script(path, chosen):
    """Make a script of a page's blocks, each on its own lines, so that a traceback tells the page's."""
    lines = [""] * (path.read_text(encoding="utf-8").count("\n") + 1)
    for block in chosen:
        lines[block.line - 1] = f"print({_MARK.format(block.line)!r}, flush=True)"
        code = block.code.splitlines()
        lines[block.line : block.line + len(code)] = code
    return "\n".join(lines)


def outputs(printed, chosen):
    """Split what a script printed into what each block did, by its line."""
    parts = re.split(_MARK.format(r"(\d+)") + "\n", printed)
    found = {int(line): text for line, text in zip(parts[1::2], parts[2::2], strict=True)}
    return [found.get(block.line, "") for block in chosen]


def promised_output(path, block):
    """Give the ```text block that comes right after a block of code, which is what it prints."""
    rest = path.read_text(encoding="utf-8")[block.end :]
    following = re.match(r"\n+```text\n(.*?)^```$", rest, re.MULTILINE | re.DOTALL)
    return following and following[1]
