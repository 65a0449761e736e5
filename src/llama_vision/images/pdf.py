"""Renders pages of PDFs, in one process that is started at the first and kept for the next.

Rendering is bounded: by the time for each reply, and, on Linux, by the memory of the process. Whatever a file does to it
becomes a `DocumentError`.
"""

import atexit
import contextlib
import importlib.util
import math
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from llama_vision.core.errors import DocumentError, MissingDependencyError
from llama_vision.images import pdf_worker
from llama_vision.images.pdf_worker import read_frame, write_frame
from llama_vision.images.tiling import TILE_SIZE, supported_aspect_ratios

_TIMEOUT_S = 20.0  # for each reply: a page of a map with a million lines takes some 2 s
_FORMAT_ERROR, _PASSWORD_ERROR, _SECURITY_ERROR = 3, 4, 5  # FPDF_ERR_... of fpdfview.h
_HEADER_BYTES = 1024  # within which Acrobat and pdfium look for the header


@dataclass(frozen=True, slots=True)
class RenderedPage:
    """Pixels and text of a page.

    Attributes:
        pixels: RGB, row by row.
        size: Width and height in pixels.
        text: The text layer, as pdfium orders it.
        points: Width and height in points (1/72 inch), as displayed.
    """

    pixels: bytes
    size: tuple[int, int]
    text: str
    points: tuple[float, float]


@dataclass(frozen=True, slots=True)
class PdfFile:
    """A PDF.

    Attributes:
        data: The file.
        digest: SHA-256 of it.
        password: If it is encrypted.
        name: What errors call it.
    """

    data: bytes
    digest: str
    password: str | None
    name: str


class _DiedError(Exception):
    """The process ended before it replied."""


def is_pdf(data: bytes) -> bool:
    """Tell whether a file is a PDF, by its header; something may stand before it."""
    return b"%PDF-" in data[:_HEADER_BYTES]


_has_renderer = False


def has_pdf_renderer() -> bool:
    """Tell whether pypdfium2 is installed. To look for it takes 40 us of a model's constructor, so once found it stays."""
    global _has_renderer  # noqa: PLW0603 - as said
    _has_renderer = _has_renderer or importlib.util.find_spec("pypdfium2") is not None
    return _has_renderer


def page_pixels(width: float, height: float) -> tuple[int, int]:
    """Choose the size in pixels of a page, from its size in any unit: the largest that the model uses without scaling.

    Of all grids of at most four tiles the one is taken into which the page fits largest; an A4 page is 791 x 1120 pixels.
    """
    scales = [
        min(columns * TILE_SIZE / width, rows * TILE_SIZE / height)
        for rows, columns in supported_aspect_ratios()
    ]
    scale = max(scales)
    return max(1, math.floor(width * scale + 1e-6)), max(1, math.floor(height * scale + 1e-6))


class PdfRenderer:
    """Renders pages, one at a time; safe for threads."""

    def __init__(self, timeout_s: float = _TIMEOUT_S) -> None:
        """Nothing is started until the first page is asked for."""
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._opened: tuple[str, str | None] | None = None  # digest and password
        self._page_count = 0

    def page_count(self, file: PdfFile) -> int:
        """Count the pages of a PDF.

        Raises:
            DocumentError: It can't be opened; the text begins with its name.
            MissingDependencyError: pypdfium2 is not installed.
        """
        with self._lock, _deaths_explained(file.name):
            return self._retry(lambda: self._open(file))

    def render(self, file: PdfFile, number: int) -> RenderedPage:
        """Render a page, by its number from 1, at the size that `page_pixels` chooses.

        Raises:
            DocumentError: It can't be rendered; the text begins with the document's name.
            MissingDependencyError: pypdfium2 is not installed.
        """

        def render() -> RenderedPage:
            self._open(file)
            return self._render(file.name, number)

        with self._lock, _deaths_explained(f"{file.name}, page {number}"):
            return self._retry(render)

    def close(self) -> None:
        """End the process; the next page starts another one."""
        with self._lock:
            self._stop()

    def _retry(self, work: Any) -> Any:
        """Do something again where a process that was kept had ended meanwhile, idle or killed."""
        kept = self._process is not None
        try:
            return work()
        except _DiedError:
            if not kept:
                raise
            return work()

    def _open(self, file: PdfFile) -> int:
        key = file.digest, file.password
        if self._process is None or self._opened != key:
            self._opened = None
            reply, _ = self._ask({"do": "open", "password": file.password}, file.data)
            _check(reply, file.name, file.password)
            self._page_count = reply["page_count"]
            self._opened = key
        if self._page_count < 1:
            raise DocumentError(f"{file.name} has no pages.")
        return self._page_count

    def _render(self, name: str, number: int) -> RenderedPage:
        where = f"{name}, page {number}"
        size, _ = self._ask({"do": "size", "page": number})
        _check(size, where, None)
        points = float(size["width"]), float(size["height"])
        if not all(math.isfinite(side) and side > 0 for side in points):
            raise DocumentError(
                f"{where}: it is {points[0]:g} x {points[1]:g} points large: there is nothing to see."
            )
        width, height = page_pixels(*points)
        reply, rows = self._ask({"do": "render", "page": number, "width": width, "height": height})
        _check(reply, where, None)
        size = reply["width"], reply["height"]
        return RenderedPage(
            _without_padding(rows, size, reply["stride"]), size, _clean(reply["text"]), points
        )

    def _ask(self, request: dict[str, Any], data: bytes = b"") -> tuple[dict[str, Any], bytes]:
        if self._process is None or self._process.poll() is not None:
            self._stop()
            if request["do"] != "open":  # the document went with the process
                raise _DiedError
            self._process = _start()
        process = self._process
        timed_out = threading.Event()

        def stop() -> None:
            timed_out.set()
            process.kill()

        timer = threading.Timer(self._timeout_s, stop)
        timer.daemon = True
        timer.start()
        try:
            # The process ends by itself a little later, for the case that this one has gone.
            stdin, stdout = _pipes(process)
            write_frame(stdin.fileno(), {**request, "seconds": self._timeout_s + 5}, data)
            frame = read_frame(stdout.fileno())
        except OSError:  # it has ended
            frame = None
        finally:
            timer.cancel()
        if frame is None:
            self._stop()
            if timed_out.is_set():
                raise DocumentError(f"it takes longer than {self._timeout_s:g} s.")
            raise _DiedError
        return frame

    def _stop(self) -> None:
        process, self._process, self._opened = self._process, None, None
        if process is not None:
            process.kill()
            process.wait()
            _close_pipes(process)

    def forget(self) -> None:
        """Leave the process to the parent of a fork: two that write to one pipe would get each other's replies."""
        process = self._process
        self._lock = threading.Lock()
        self._process, self._opened = None, None
        if process is not None:
            _close_pipes(process)
            process.returncode = 0  # it is not this process's child


def _start() -> "subprocess.Popen[bytes]":
    if not has_pdf_renderer():
        raise MissingDependencyError("PDFs need pypdfium2. Install it: pip install 'llama-vision[pdf]'.")
    # As a script, not with -m: that would import this package first. -P keeps its folder out of the path of modules.
    command = [sys.executable, "-P", str(Path(pdf_worker.__file__))]
    return subprocess.Popen(  # noqa: S603 - nothing of it comes from a user
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        start_new_session=True,  # Ctrl-C is for the one who asked
    )


def _pipes(process: "subprocess.Popen[bytes]") -> tuple[IO[bytes], IO[bytes]]:
    return cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)


def _close_pipes(process: "subprocess.Popen[bytes]") -> None:
    for pipe in _pipes(process):
        with contextlib.suppress(OSError):
            pipe.close()


@contextlib.contextmanager
def _deaths_explained(where: str) -> Any:
    """Say which document or page it was where the process ended or took too long."""
    try:
        yield
    except _DiedError as error:
        raise DocumentError(
            f"{where}: it can't be rendered: pdfium crashed, or needed more than 800 MB. Save it anew (print it to a PDF)."
        ) from error
    except DocumentError as error:
        text = str(error)
        if text.startswith("it takes"):
            raise DocumentError(
                f"{where}: it can't be rendered: {text} Save it anew (print it to a PDF)."
            ) from None
        raise


def _check(reply: dict[str, Any], where: str, password: str | None) -> None:
    """Raise the error of a reply, if it is one."""
    if "error" not in reply:
        return
    match reply.get("code"):
        case code if code == _PASSWORD_ERROR:
            if password is None:
                raise DocumentError(f"{where} is encrypted. Pass its password: password='...'.")
            raise DocumentError(f"{where} is encrypted, and the password is wrong.")
        case code if code == _SECURITY_ERROR:
            raise DocumentError(
                f"{where} is protected in a way that pdfium doesn't know. Save it without protection."
            )
        case code if code == _FORMAT_ERROR:
            raise DocumentError(
                f"{where} can't be opened: it is cut off, damaged or no PDF. Save or fetch it again."
            )
        case _:
            raise DocumentError(
                f"{where} can't be rendered: {str(reply['error'])[:200].rstrip('.')}. It is damaged."
            )


def _without_padding(rows: bytes, size: tuple[int, int], stride: int) -> bytes:
    width, height = size
    if stride == 3 * width:
        return rows[: stride * height]
    return b"".join(rows[start : start + 3 * width] for start in range(0, stride * height, stride))


def _clean(text: str) -> str:
    """Write lines as others do; a hyphen at a line's end is U+FFFE in pdfium, and U+0002 in older ones."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufffe", "-").replace("\x02", "-")
    kept = "".join(char for char in text if char >= " " or char in "\n\t")
    return kept.encode("utf-8", "replace").decode().strip()


RENDERER = PdfRenderer()
"""The one of this process."""

atexit.register(RENDERER.close)
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=RENDERER.forget)
