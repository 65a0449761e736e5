"""Whatever holds an image's bytes is read, up to a limit, or refused by name; what a local file says stays in it."""

import array
import asyncio
import ctypes
import importlib.resources
import io
import mmap
import os
import tempfile
import threading
import time
import zipfile
from pathlib import Path

import httpx
import matplotlib.figure
import numpy as np
import PIL.Image
import pytest
import requests
import torch
from starlette.datastructures import UploadFile

from llama_vision import image_from_any
from llama_vision.core.errors import ImageError, LlamaVisionError
from llama_vision.images import image_from_base64, image_from_url, pages, read
from llama_vision.images.documents import image_or_document
from tests.images.test_sources import BASE64, EXPECTED, PNG


def refusal(source):
    with pytest.raises(ImageError) as caught:
        image_from_any(source)
    return str(caught.value)


def at_its_end(file):
    file.read()
    return file


def mapped(*, read_before=False):
    memory = mmap.mmap(-1, len(PNG))
    memory.write(PNG)
    if not read_before:
        memory.seek(0)
    return memory


def response_of_requests():
    response = requests.Response()
    response._content = PNG
    return response


class Reader:
    """Something with `read()` alone, which takes no size."""

    def read(self):
        return PNG


class PieceReader(io.RawIOBase):
    """A raw stream, which gives less than it is asked for."""

    def __init__(self):
        self._rest = io.BytesIO(PNG)

    def readable(self):
        return True

    def readinto(self, buffer):
        piece = self._rest.read(7)
        buffer[: len(piece)] = piece
        return len(piece)


def zip_path():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.png", PNG)
    return zipfile.Path(zipfile.ZipFile(buffer), "a.png")


READERS = {
    "httpx.Response": lambda: httpx.Response(200, content=PNG),
    "requests.Response": response_of_requests,
    "mmap": mapped,
    "mmap at its end": lambda: mapped(read_before=True),
    "BytesIO at its end": lambda: at_its_end(io.BytesIO(PNG)),
    "UploadFile": lambda: UploadFile(io.BytesIO(PNG)),
    "UploadFile that was read": lambda: UploadFile(at_its_end(io.BytesIO(PNG))),
    "read() alone": Reader,
    "a raw stream": PieceReader,
    "array.array": lambda: array.array("B", PNG),
    "a ctypes buffer": lambda: (ctypes.c_char * len(PNG)).from_buffer_copy(PNG),
    "a view with a step": lambda: memoryview(bytes(byte for byte in PNG for _ in range(2)))[::2],
    "a path in an archive": zip_path,
}


@pytest.mark.parametrize("make", READERS.values(), ids=READERS)
def test_what_can_be_read_is_taken(make):
    assert image_from_any(make()) == EXPECTED


def test_a_spooled_file_at_its_end():
    with tempfile.SpooledTemporaryFile() as file:
        file.write(PNG)
        assert image_from_any(file) == EXPECTED


def test_a_directory_entry_and_a_packages_resource(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    (entry,) = os.scandir(tmp_path)
    assert image_from_any(entry) == EXPECTED
    resource = importlib.resources.files("llama_vision.demo")
    (found,) = [
        file
        for each in resource.iterdir()
        if each.is_dir()
        for file in each.iterdir()
        if file.name.endswith(".png")
    ][:1]
    assert image_from_any(found).media_type == "image/png"


def test_a_tensor_and_an_array_scalar_of_numpy():
    pixels = torch.arange(36, dtype=torch.uint8).reshape(3, 4, 3)
    image = image_from_any(pixels)
    assert np.array_equal(np.asarray(PIL.Image.open(io.BytesIO(image.data))), pixels.numpy())
    assert "float32 with shape (3, 4, 3)" in refusal(torch.zeros(3, 4, 3))
    assert "can't be made an array" in refusal(torch.zeros(3, 4, 3, requires_grad=True))


def test_a_figure_of_matplotlib():
    figure = matplotlib.figure.Figure(figsize=(1, 1), dpi=50)
    figure.add_subplot().plot([1, 2])
    assert PIL.Image.open(io.BytesIO(image_from_any(figure).data)).size == (50, 50)


class AsynchronousReader:
    async def read(self):
        return PNG


class Awaited:
    def read(self):
        return AsynchronousReader().read()


@pytest.mark.parametrize("source", [AsynchronousReader(), Awaited()], ids=["function", "awaitable"])
def test_what_is_read_asynchronously_says_what_to_do(source):
    assert "is read asynchronously. Await its read() and pass the bytes." in refusal(source)


def test_a_stream_that_was_read_before_says_so():
    reading, writing = os.pipe()
    os.write(writing, PNG)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert image_from_any(pipe) == EXPECTED
        assert "was read before and can't be wound back" in refusal(pipe)


async def test_a_streamed_response_that_was_not_awaited():
    async def parts():
        yield PNG

    assert "can't be read: " in await asyncio.to_thread(refusal, httpx.Response(200, content=parts()))


def test_a_device_without_end():
    began = time.perf_counter()
    assert "'/dev/zero' can't be read: it has more than 128 MB" in refusal("/dev/zero")
    with Path("/dev/zero").open("rb") as file:
        assert "has more than 128 MB" in refusal(file)
    assert time.perf_counter() - began < 5


def test_a_sparse_file_is_refused_by_its_size(tmp_path):
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.truncate(50_000_000_000)
    began = time.perf_counter()
    assert "can't be read: it has 50,000 MB, more than 128 MB" in refusal(path)
    assert time.perf_counter() - began < 0.5


def test_a_pipe_that_nobody_writes_to_does_not_block(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "a.png")
    monkeypatch.setattr(read, "PIPE_TIMEOUT_S", 0.1)
    assert "nothing came for 0.1 s" in refusal(tmp_path / "a.png")
    holder = os.open(tmp_path / "a.png", os.O_RDWR)
    assert "nothing came for 0.1 s" in refusal(tmp_path / "a.png")
    os.close(holder)


def test_a_pipe_that_is_written_to_late(tmp_path):
    path = tmp_path / "a.png"
    os.mkfifo(path)
    holder = os.open(path, os.O_RDWR)

    def write():
        time.sleep(0.1)
        os.write(holder, PNG)
        os.close(holder)

    writer = threading.Thread(target=write)
    writer.start()
    assert image_from_any(path) == EXPECTED
    writer.join()


@pytest.mark.parametrize(
    "content", [b"root:x:0:0", b"<Error>secret</Error>", b"<html>secret", b"secret\xff", b'{"secret": 1}']
)
@pytest.mark.parametrize("form", [str, Path, lambda path: path.as_uri()], ids=["str", "Path", "URI"])
def test_an_error_about_a_path_quotes_nothing_of_the_file(tmp_path, content, form):
    path = tmp_path / "passwd"
    path.write_bytes(content)
    text = refusal(form(path))
    assert text.startswith(f"{path}: This is not an image: ")
    reason = text.removeprefix(str(path))
    assert "secret" not in reason
    assert "root" not in reason


@pytest.mark.parametrize("take", [image_or_document, pages])
def test_an_error_about_a_path_that_may_be_a_document_quotes_nothing_either(tmp_path, take):
    path = tmp_path / "passwd"
    path.write_bytes(b"secret:0:0")
    with pytest.raises(LlamaVisionError, match="passwd") as caught:
        take(path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/png; base64,{BASE64}",
        f"data:image/png;base64 ,{BASE64}",
        f"data:image/png;BASE64,{BASE64}",
        f" \x00data:image/png;base64,{BASE64}\n",
        f"da\nta:image/png;ba\tse64,{BASE64[:20]}\r\n{BASE64[20:]}",
        f"data:image/png;base64,{BASE64}#fragment",
        f"data:image/png;base64,{BASE64[:20]}%20%0A{BASE64[20:]}",
        f"data:;charset=utf-8;  base64,{BASE64}",
        f"data:base64;base64,{BASE64}",
        f"data: image/png ;base64,{BASE64}",
        "data:image/png," + "".join(f"%{byte:02x}" for byte in PNG) + "#fragment",
    ],
    ids=lambda url: ascii(url)[:30],
)
@pytest.mark.parametrize("take", [image_from_url, image_from_any, image_from_base64])
def test_a_data_url_as_browsers_take_it(url, take):
    assert take(url) == EXPECTED


def test_a_data_url_whose_last_parameter_is_another_is_no_base64():
    with pytest.raises(ImageError, match="not an image"):
        image_from_url(f"data:image/png;base64;charset=utf-8,{BASE64}")


@pytest.mark.parametrize("host", ["", "localhost", "LOCALHOST"])
def test_a_file_url_where_a_path_may_be(tmp_path, host):
    path = tmp_path / "an image.png"
    path.write_bytes(PNG)
    url = path.as_uri().replace("file://", f"file://{host}")
    assert "%20" in url
    assert image_from_any(url) == EXPECTED
    with pytest.raises(ImageError, match="has to be an http"):
        image_from_url(url)


def test_a_file_url_of_another_machine():
    assert "names another machine" in refusal("file://server/share/a.png")
