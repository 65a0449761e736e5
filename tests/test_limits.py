"""docs/limits.md: its figures are those of the code, and each limit has a test at it and beyond it."""

import io
import json
from pathlib import Path

import PIL.Image
import pytest

from llama_vision.backends import DEFAULT_MAX_RETRIES, DEFAULT_TIMEOUT_S
from llama_vision.backends.http import backend, call, connection_pools, reply_stream, retry
from llama_vision.backends.local import LocalSettings, engine_thread
from llama_vision.core.errors import ImageError, InvalidRequestError, MalformedReplyError
from llama_vision.core.request import Tool
from llama_vision.dialects import error_bodies
from llama_vision.dialects.chat_completions.wire import MAX_TOOL_CALLS
from llama_vision.dialects.dialect import MAX_PAYLOAD_BYTES
from llama_vision.images import (
    contact_sheet,
    decode,
    decode_budget,
    documents,
    image_from_any,
    pdf,
    read,
    settings,
)
from llama_vision.images.fetch_policy import FetchPolicy
from llama_vision.images.prepare import prepare_image
from llama_vision.images.settings import EncodingOptions
from llama_vision.langchain import ChatLlamaVision
from llama_vision.providers import ImageConstraints
from llama_vision.serve import ServeSettings, server
from llama_vision.structured.method import MAX_OUTPUT_RETRIES
from llama_vision.toolcalls import literals, parse_tool_calls
from tests.emulator import Answer

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "limits.md"

MB, MIB = 1_000_000, 2**20

TESTED = [
    # what, its figure in the code, as the page has it, the file of its tests, that at the limit, that beyond it
    (
        "a file, a pipe, bytes",
        f"{read.MAX_FILE_BYTES // MB} MB",
        "test_limits.py",
        "a_file_at_the_limit",
        "a_file_at_the_limit",
    ),
    ("a pipe or device", f"{read.PIPE_TIMEOUT_S:g} s", "images/test_readers.py", "pipe", "pipe"),
    (
        "width times height",
        f"{decode.MAX_PIXELS:,} pixels",
        "test_limits.py",
        "pixels_at_the_limit",
        "pixels_at_the_limit",
    ),
    (
        "pixels times depth",
        f"{decode._MAX_STORED_BYTES // MB} MB",
        "test_limits.py",
        "depth_at_the_limit",
        "depth_at_the_limit",
    ),
    (
        "memory of all images",
        f"{decode_budget.MAX_DECODE_BYTES // MB} MB",
        "images/test_decode_budget.py",
        "six_large_images",
        "never_fits",
    ),
    (
        "a download",
        f"{FetchPolicy().max_bytes // MB} MB",
        "images/test_fetch.py",
        "just_as_much_as_is_allowed",
        "more_than_is_allowed",
    ),
    (
        "the time of a download",
        f"{FetchPolicy().timeout_s:g} s",
        "images/test_fetch.py",
        "time_limit",
        "time_limit",
    ),
    (
        "redirects of a download",
        f"{FetchPolicy().max_redirects}",
        "images/test_fetch.py",
        "a_redirect",
        "too_many_redirects",
    ),
    (
        "images on one sheet",
        f"{contact_sheet._MAX_IMAGES}",
        "images/test_contact_sheet.py",
        "each_image_is_in_its_cell",
        "too_many_are_refused",
    ),
    (
        "a PDF or TIFF",
        f"{documents.MAX_BYTES // MB} MB",
        "test_limits.py",
        "a_document_at_the_limit",
        "a_document_at_the_limit",
    ),
    (
        "its pages",
        f"{settings.DOCUMENT_MAX_PAGES}",
        "images/test_pages.py",
        "pages_are_chosen",
        "more_pages_than_the_limit",
    ),
    (
        "the time of a page's rendering",
        f"{pdf._TIMEOUT_S:g} s",
        "images/test_pdf_renderer.py",
        "one_process_renders_all",
        "takes_too_long",
    ),
    (
        "one event of a stream",
        f"{MAX_PAYLOAD_BYTES // MIB} MiB",
        "dialects/test_sse.py",
        "events_of_the_largest_size",
        "too_large",
    ),
    (
        "a whole body",
        f"{MAX_PAYLOAD_BYTES // MIB} MiB",
        "backends/http/test_reply_limits.py",
        "may_be_compressed",
        "too_long",
    ),
    (
        "a stream",
        f"{reply_stream.MAX_STREAM_BYTES // MIB} MiB",
        "backends/http/test_reply_limits.py",
        "largest_length",
        "largest_length",
    ),
    (
        "an error's body",
        f"{backend._MAX_ERROR_BYTES // MIB} MiB",
        "test_limits.py",
        "an_errors_body",
        "an_errors_body",
    ),
    (
        "an error's body",
        f"{error_bodies._MAX_QUOTED} characters",
        "backends/http/test_reply_limits.py",
        "long_error",
        "long_error",
    ),
    ("tool calls", f"{MAX_TOOL_CALLS:,}", "dialects/test_decode_tool_calls.py", "calls", "calls"),
    ("nesting of JSON", "MalformedReplyError", "test_limits.py", "nested_json", "nested_json"),
    (
        "nesting of arguments",
        f"{literals._MAX_DEPTH} levels",
        "test_limits.py",
        "nested_arguments",
        "nested_arguments",
    ),
    ("redirects", "none", "backends/http/test_http_retries.py", "redirect", "redirect"),
    (
        "seconds without a byte",
        f"{DEFAULT_TIMEOUT_S:g} s",
        "backends/http/test_deadlines.py",
        "a_consumer_that_takes_its_time",
        "twice_the_timeout_at_most",
    ),
    (
        "the head of a response",
        {2.0: "twice"}[call._LIMIT_IN_TIMEOUTS],
        "backends/http/test_deadlines.py",
        "goes_on_takes_as_long",
        "twice_the_timeout_at_most",
    ),
    ("a whole call", "none", "backends/http/test_deadlines.py", "deadline", "deadline"),
    (
        "retries",
        f"{DEFAULT_MAX_RETRIES}",
        "backends/http/test_http_retries.py",
        "no_retry_is_left",
        "no_retry_is_left",
    ),
    (
        "a wait that a provider asks for",
        f"{retry._MAX_RETRY_AFTER_S:g} s",
        "backends/http/test_http_retries.py",
        "what_the_provider_asks_for",
        "too_much_patience",
    ),
    (
        "connection pools",
        f"{connection_pools._MAX_POOLS}",
        "backends/http/test_http_connections.py",
        "few_pools",
        "few_pools",
    ),
    (
        "requests of",
        f"{MAX_OUTPUT_RETRIES} more",
        "structured/test_session.py",
        "a_retry_shows",
        "a_retry_shows",
    ),
    (
        "sequences in the running batch",
        f"{LocalSettings().max_batch_size}",
        "backends/local/test_continuous_batching.py",
        "first_come_first_served",
        "joins_while_another",
    ),
    (
        "requests in the queue",
        f"{LocalSettings().max_waiting:,}",
        "backends/local/test_continuous_batching.py",
        "a_full_queue",
        "a_full_queue",
    ),
    ("tokens of prompt and reply", "window", "backends/local/test_engine.py", "test_", "test_"),
    (
        "the KV cache",
        "as far as it can be used",
        "backends/local/test_kv_cache_size.py",
        "takes_what",
        "no_room",
    ),
    (
        "encoded images",
        "what no sequence uses",
        "backends/local/test_engine.py",
        "an_image_is_encoded_once",
        "evicts_the_least",
    ),
    (
        "prefixes",
        "what no sequence uses",
        "backends/local/test_prefix_cache.py",
        "next_turn",
        "evicted",
    ),
    (
        "idle models",
        f"{engine_thread._MAX_IDLE}",
        "backends/local/test_watchdog.py",
        "many_settings",
        "many_settings",
    ),
    (
        "a request's body",
        f"{ServeSettings().max_body_bytes // MIB} MiB",
        "serve/test_serve_limits.py",
        "a_body_at_the_limit",
        "a_body_at_the_limit",
    ),
    (
        "the time of its arrival",
        f"{ServeSettings().body_timeout_s:g} s",
        "serve/test_serve_limits.py",
        "dribbles",
        "dribbles",
    ),
    (
        "its images",
        f"{ServeSettings().max_images}",
        "serve/test_serve_limits.py",
        "more_images",
        "more_images",
    ),
    (
        "requests in work",
        f"{ServeSettings().max_requests}",
        "serve/test_serve_limits.py",
        "one_request_too_many",
        "one_request_too_many",
    ),
    (
        "the time of a request",
        f"{ServeSettings().timeout_s:g} s",
        "serve/test_serve_limits.py",
        "takes_too_long",
        "takes_too_long",
    ),
    ("output tokens", "window", "serve/test_serve_limits.py", "token_limit", "token_limit"),
    (
        "replies after SIGTERM",
        f"{ServeSettings().shutdown_timeout_s:g} s",
        "serve/test_serve_limits.py",
        "drains",
        "drains",
    ),
    (
        "the head of a request",
        f"{server._MAX_HEAD_BYTES:,} bytes",
        "serve/test_serve_limits.py",
        "a_head_",
        "a_head_",
    ),
    (
        "the time of its arrival",
        f"{server._HEAD_TIMEOUT_S:g} s",
        "serve/test_serve_limits.py",
        "a_head_",
        "a_head_",
    ),
    (
        "what is sent of an image",
        "560 x 560",
        "images/test_tiling.py",
        "the_size_is_that_of",
        "no_more_pixels_than",
    ),
]


def rows():
    """The rows of the page: what, and its limit."""
    lines = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return [(cells[0], cells[1]) for cells in lines if cells[0] not in ("what", "---")]


@pytest.mark.parametrize(("what", "figure", "file", "at", "beyond"), TESTED)
def test_the_pages_figure_is_the_codes_and_has_tests(what, figure, file, at, beyond):
    assert any(row.startswith(what) and figure in limit for row, limit in rows()), (what, figure)
    names = [line for line in (ROOT / "tests" / file).read_text().splitlines() if "def test_" in line]
    for word in (at, beyond):
        assert any(word in name for name in names), f"no test of {word} in {file}"


def test_every_row_of_the_page_is_listed_here():
    assert [row for row, _ in rows() if not any(row.startswith(each[0]) for each in TESTED)] == []


def png(width, height, mode="RGB"):
    file = io.BytesIO()
    PIL.Image.new(mode, (width, height)).save(file, "PNG")
    return file.getvalue()


def test_a_file_at_the_limit_is_read_and_one_beyond_it_is_not(tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    path.write_bytes(png(10, 10))
    size = path.stat().st_size
    monkeypatch.setattr(read, "MAX_FILE_BYTES", size)
    assert image_from_any(path).data == path.read_bytes()
    monkeypatch.setattr(read, "MAX_FILE_BYTES", size - 1)
    with pytest.raises(ImageError, match="too much"):
        image_from_any(path)


def test_pixels_at_the_limit_are_decoded_and_more_are_not(monkeypatch):
    check = decode._check_dimensions
    check((178_000, 1000))
    with pytest.raises(ImageError, match="178"):
        check((178_000, 1001))


@pytest.mark.parametrize("mode", ["RGB", "I;16", "1"])
def test_pixels_times_depth_at_the_limit_are_decoded_and_more_are_not(monkeypatch, mode):
    bits = {"RGB": 24, "I;16": 16, "1": 1}[mode]
    image = image_from_any(png(64, 48, mode))
    stored = 64 * 48 * bits // 8
    small = EncodingOptions(max_pixels=1000)
    monkeypatch.setattr(decode, "_MAX_STORED_BYTES", stored)
    assert prepare_image(image, ImageConstraints(), small).data
    monkeypatch.setattr(decode, "_MAX_STORED_BYTES", stored - 1)
    with pytest.raises(ImageError, match="uncompressed"):
        prepare_image(image, ImageConstraints(), small)


def test_a_document_at_the_limit_is_opened_and_one_beyond_it_is_not(monkeypatch):
    file = io.BytesIO()
    PIL.Image.new("RGB", (9, 9)).save(
        file, "TIFF", save_all=True, append_images=[PIL.Image.new("RGB", (9, 9))]
    )
    data = file.getvalue()
    monkeypatch.setattr(documents, "MAX_BYTES", len(data))
    assert documents.open_document(documents.document_from_any(data)).page_count == 2
    monkeypatch.setattr(documents, "MAX_BYTES", len(data) - 1)
    with pytest.raises(ImageError, match="Split it"):
        documents.open_document(documents.document_from_any(data))


@pytest.mark.parametrize(("beyond", "is_read"), [(0, True), (1, False)])
def test_of_an_errors_body_so_much_is_read(emulator, monkeypatch, beyond, is_read):
    body = json.dumps({"pad": "x" * 5000, "error": {"message": "the cause"}}).encode()
    monkeypatch.setattr(backend, "_MAX_ERROR_BYTES", len(body) - beyond)
    emulator.script(Answer((body,), status=400))
    model = ChatLlamaVision(base_url=emulator.base_url, api_key=emulator.api_key, max_retries=0)
    with pytest.raises(InvalidRequestError) as caught:
        model.invoke("Hi")
    assert ("the cause" in str(caught.value)) is is_read


@pytest.mark.parametrize(("depth", "is_read"), [(50, True), (100_000, False)])
def test_nested_json_in_a_reply_is_read_or_an_error(emulator, depth, is_read):
    choices = '[{"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]'
    body = f'{{"choices":{choices},"extra":{"[" * depth + "]" * depth}}}'
    emulator.script(Answer((body.encode(),)))
    model = ChatLlamaVision(base_url=emulator.base_url, api_key=emulator.api_key, max_retries=0)
    if is_read:
        assert model.invoke("Hi").text == "Hi"
    else:
        with pytest.raises(MalformedReplyError):
            model.invoke("Hi")


@pytest.mark.parametrize(("depth", "count"), [(literals._MAX_DEPTH, 1), (literals._MAX_DEPTH + 1, 0)])
def test_nested_arguments_are_a_call_or_stay_text(depth, count):
    text = "[f(x=" + "[" * depth + "]" * depth + ")]"
    found = parse_tool_calls(text, [Tool("f")])
    assert len(found.tool_calls) == count
    assert found.content == (None if count else text)
