"""The process in which PDFs are rendered: pdfium is C++, and a file that crashes it must not take the user's process.

It is run as a script, with the standard library and pypdfium2 alone, so that it starts in some 70 ms. Requests and replies
are a length, JSON, and bytes; `pdf` is the other side.
"""

import contextlib
import importlib
import json
import os
import struct
from typing import Any

_MAX_MEMORY = 800_000_000  # bytes of address space: pdfium itself takes some 30 MB
_IDLE_S = 60  # after which the process ends, and with it the copy of the last document
_MAX_TEXT_CHARS = 100_000  # of a page: a dense one has 10,000
_PIECE = 1 << 20  # bytes read or written at once
_LENGTH = struct.Struct(">II")  # of the JSON and of the bytes that follow

_open: dict[str, Any] = {}


def read_frame(file: int) -> tuple[dict[str, Any], bytes] | None:
    """Read a request or a reply from a file descriptor; None where it ends first."""
    try:
        json_length, length = _LENGTH.unpack(_read(file, _LENGTH.size))
        return json.loads(_read(file, json_length)), _read(file, length)
    except EOFError:
        return None


def _read(file: int, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        if not (piece := os.read(file, min(count - len(data), _PIECE))):
            raise EOFError
        data += piece
    return bytes(data)


def write_frame(file: int, fields: dict[str, Any], data: bytes = b"") -> None:
    """Write a request or a reply to a file descriptor."""
    text = json.dumps(fields).encode()
    for part in (_LENGTH.pack(len(text), len(data)) + text, data):
        rest = memoryview(part)
        while rest:
            rest = rest[os.write(file, rest[:_PIECE]) :]


def _limit_resources() -> None:
    """Limit memory, where the system can: a process that needs more ends, and only this one."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on Windows; macOS refuses some
        import resource  # noqa: PLC0415 - not on Windows

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))


def _set_alarm(seconds: float) -> None:
    """End the process after so many seconds, also inside of pdfium, and where whoever asked is gone."""
    with contextlib.suppress(ImportError, AttributeError):  # not on Windows
        import signal  # noqa: PLC0415 - beside its use

        signal.setitimer(signal.ITIMER_REAL, seconds)


def _open_document(data: bytes, password: str | None) -> dict[str, Any]:
    pypdfium2: Any = importlib.import_module("pypdfium2")  # here: the other side uses only the frames
    if (previous := _open.pop("document", None)) is not None:
        previous.close()
    document = pypdfium2.PdfDocument(data, password=password)
    if document.get_formtype():
        document.init_forms()  # so that what was filled in is drawn
    _open["document"] = document
    return {"page_count": len(document)}


def _page_size(number: int) -> dict[str, Any]:
    page = _open["document"][number - 1]
    try:
        width, height = page.get_size()
        return {"width": width, "height": height}
    finally:
        page.close()


def _render(number: int, width: int, height: int) -> tuple[dict[str, Any], bytes]:
    """Render a page on white to at most this size in pixels, and read its text."""
    page = _open["document"][number - 1]
    try:
        page_width, page_height = page.get_size()
        # pypdfium2 rounds up.
        scale = min(width / page_width, height / page_height) * (1 - 1e-9)
        bitmap = page.render(scale=scale, rev_byteorder=True)
        rows = bytes(bitmap.buffer)
        fields = {
            "width": bitmap.width,
            "height": bitmap.height,
            "stride": bitmap.stride,
            "text": _text(page),
        }
        bitmap.close()
        return fields, rows
    finally:
        page.close()


def _text(page: Any) -> str:
    text_page = page.get_textpage()
    try:
        count: int = text_page.count_chars()
        text: str = text_page.get_text_range(0, min(count, _MAX_TEXT_CHARS)) if count > 0 else ""
    finally:
        text_page.close()
    return text + (
        f"\n(The text goes on: {count - _MAX_TEXT_CHARS} characters more.)" if count > _MAX_TEXT_CHARS else ""
    )


def _handle(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    pdfium_error: Any = importlib.import_module("pypdfium2").PdfiumError
    try:
        match request["do"]:
            case "open":
                return _open_document(data, request["password"]), b""
            case "size":
                return _page_size(request["page"]), b""
            case _:
                return _render(request["page"], request["width"], request["height"])
    except pdfium_error as error:
        return {"error": str(error), "code": getattr(error, "err_code", None)}, b""
    except MemoryError:
        return {"error": "memory"}, b""
    except Exception as error:  # noqa: BLE001 - a file can break anything, and the next is not to blame
        return {"error": f"{type(error).__name__}: {error}"}, b""


def main() -> None:
    """Serve requests until there are no more."""
    _limit_resources()
    # Whatever a library prints must not end up among the replies.
    replies = os.dup(1)
    os.dup2(2, 1)
    while True:
        _set_alarm(_IDLE_S)
        frame = read_frame(0)
        if frame is None:
            return
        request, data = frame
        _set_alarm(request["seconds"])
        fields, payload = _handle(request, data)
        del data
        write_frame(replies, fields, payload)


if __name__ == "__main__":
    main()
