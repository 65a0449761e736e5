"""Cassettes on disk: each is used, tells where it came from, holds no secret, and reads back as what came over HTTP."""

import json
import re
from decimal import Decimal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llama_vision.dialects.sse import SseDecoder
from tests.cassette_cases import CASES, ROOT
from tests.cassette_files import ReadableYaml, to_readable
from tests.cassette_scrubbing import KEPT_REQUEST_HEADERS, KEPT_RESPONSE_HEADERS, PLACEHOLDER, leaks

FOLDER = ROOT / "cassettes"
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file())
EVERY_FILE = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
_PROVENANCE = re.compile(
    r"# provenance: (documentation https://\S+|emulator|live \d{4}-\d\d-\d\d)\n(?:# .+\n)*"
)
ODD_BODIES = {
    "a key that comes twice": '{"a":1,"a":2}',
    "more digits than a float has": '{"a":0.12345678901234567890}',
    "a number beyond all floats": '{"a":1e999}',
    "half a character": '{"a":"\\ud83d"}',
    "a number with too many digits": f'{{"a":{"1" * 5000}}}',
    "a thousand brackets": "[" * 100_000,
    "a web page": "<html>\n  <h1>502 Bad Gateway</h1>\n</html>\n",
    "words": "upstream connect error",
    "a number": "42",
    "null": "null",
}


def through_a_file(body):
    interaction = {
        "request": {"method": "POST", "uri": "https://example.com", "headers": {}, "body": body},
        "response": {"status": {"code": 200, "message": "OK"}, "headers": {}, "body": {"string": body}},
    }
    (read,) = ReadableYaml.deserialize(ReadableYaml.serialize({"version": 1, "interactions": [interaction]}))[
        "interactions"
    ]
    assert read["request"]["body"] == read["response"]["body"]["string"]
    return read["request"]["body"]


def payloads(body):
    """Read a stream as the package does, which knows nothing of cassettes."""
    decoder = SseDecoder()
    found = [*decoder.feed(body.encode()), *decoder.close()]
    return [parsed(payload) for payload in found]


def parsed(payload):
    try:
        return json.loads(payload)
    except ValueError:
        return payload


def exact(text):
    return json.loads(text, object_pairs_hook=tuple, parse_float=Decimal)


def test_every_cassette_is_used_and_every_case_has_one():
    assert {str(path.relative_to(FOLDER)) for path in FILES} == {f"{'/'.join(case)}.yaml" for case in CASES}


@EVERY_FILE
def test_a_cassette_tells_where_it_came_from(path):
    assert _PROVENANCE.match(path.read_text(encoding="utf-8"))
    emulated = path.parent.name.startswith("emulator-")
    assert emulated == path.read_text(encoding="utf-8").startswith("# provenance: emulator\n")


@EVERY_FILE
def test_a_cassette_holds_no_secret(path):
    assert not leaks(path.read_text(encoding="utf-8"))
    for interaction in yaml.safe_load(path.read_text(encoding="utf-8"))["interactions"]:
        request, response = interaction["request"], interaction["response"]
        assert request["headers"]["authorization"] == [PLACEHOLDER]
        assert {name.lower() for name in request["headers"]} <= KEPT_REQUEST_HEADERS
        assert {name.lower() for name in response["headers"]} <= KEPT_RESPONSE_HEADERS


@EVERY_FILE
def test_a_cassette_is_written_as_recording_would_write_it(path):
    text = path.read_text(encoding="utf-8")
    comments = _PROVENANCE.match(text)[0]
    assert text == comments + ReadableYaml.serialize(ReadableYaml.deserialize(text))
    assert "string:" not in text, "a body that nobody can read"


def test_json_becomes_yaml():
    body = '{"b": [1, 2.5, null, true], "a": {"text": "no: \\"1\\"", "on": "2026-01-01"}}'
    assert to_readable(body) == {"json": json.loads(body)}
    assert through_a_file(body) == '{"b":[1,2.5,null,true],"a":{"text":"no: \\"1\\"","on":"2026-01-01"}}'


def test_a_stream_becomes_a_list_of_its_events():
    body = ': keep-alive\n\ndata: {"a": 1}\n\ndata:{"a": 2}\n\nevent: error\ndata: {}\n\ndata: [DONE]\n\ndata: {"cut'
    assert to_readable(body) == {
        "events": [
            {"text": ": keep-alive\n\n"},
            {"data": {"a": 1}},
            {"text": 'data:{"a": 2}\n\n'},
            {"text": "event: error\ndata: {}\n\n"},
            {"data": "[DONE]"},
            {"text": 'data: {"cut'},
        ]
    }
    assert through_a_file(body) == body.replace('data: {"a": 1}', 'data: {"a":1}')


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_a_stream_with_other_line_ends_keeps_them(end):
    body = f'data: {{"a": 1}}{end}{end}data: [DONE]{end}{end}'
    assert [list(event) for event in to_readable(body)["events"]] == [["text"], ["text"]]
    assert through_a_file(body) == body


def test_lines_are_written_as_lines():
    text = ReadableYaml.serialize(
        {
            "version": 1,
            "interactions": [
                {
                    "request": {
                        "method": "POST",
                        "uri": "https://example.com",
                        "headers": {},
                        "body": '{"a":"One.\\n\\nTwo."}',
                    },
                    "response": {
                        "status": {"code": 502, "message": ""},
                        "headers": {},
                        "body": {"string": "<p>\n</p>\n"},
                    },
                }
            ],
        }
    )
    assert "        a: |-\n          One.\n\n          Two.\n" in text
    assert "      string: |\n        <p>\n        </p>\n" in text


@pytest.mark.parametrize("body", ODD_BODIES.values(), ids=ODD_BODIES)
def test_what_would_lose_something_stays_as_it_came(body):
    assert to_readable(body) == {"string": body}
    assert through_a_file(body) == body


def test_a_request_without_a_body_has_none():
    assert to_readable("") == {}
    assert through_a_file("") == ""


def test_bytes_that_are_no_text_stay_as_they_came():
    assert through_a_file(b"\x89PNG\r\n\x1a\n\xff") == b"\x89PNG\r\n\x1a\n\xff"
    assert through_a_file(None) is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(_JSON.filter(lambda value: isinstance(value, dict | list)), st.booleans(), st.sampled_from([None, 2]))
def test_any_json_reads_back_the_same(value, ensure_ascii, indent):
    body = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)
    assert exact(through_a_file(body)) == exact(body)


@given(st.text())
def test_any_text_reads_back_the_same(body):
    assert through_a_file(body) == body


_PIECES = (
    "data: ",
    "data:",
    ": ",
    "event: x",
    "\n",
    "\n\n",
    "\r\n",
    "\r",
    "[DONE]",
    '{"a": "\\n"}',
    "\x85",
    "\u2028",
    " ",
)


@given(st.lists(st.sampled_from(_PIECES)))
def test_any_stream_reads_back_the_same(pieces):
    body = "".join(pieces)
    assert payloads(through_a_file(body)) == payloads(body)
