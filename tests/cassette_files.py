"""Cassettes as files: YAML that can be read and reviewed, with a first line that tells where it came from."""

import contextlib
import copy
import datetime as dt
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from vcr import VCR
from vcr.cassette import Cassette
from vcr.persisters.filesystem import CassetteNotFoundError, FilesystemPersister
from vcr.serialize import deserialize, serialize

from tests.cassette_scrubbing import leaks, without_secrets, without_secrets_in_reply

_EVENT = re.compile(r".+?(?:\n\n|\r\n\r\n|\r\r|\Z)", re.DOTALL)
_PLAIN_EVENT = re.compile(r"data: ([^\r\n]*)\n\n")
_STREAM = re.compile(r"(?:data|event|id|retry)?:")
_FORM = re.compile(r"--([\w-]+)\r\n(.*)\r\n--\1--\r\n", re.DOTALL)
_WIDTH = 110


def use_our_files(vcr: VCR) -> None:
    """Have VCR read and write cassettes as they are described here."""
    vcr.register_serializer("yaml", ReadableYaml)
    vcr.register_persister(WithProvenance)


def vcr_options(*, recording: bool) -> dict[str, Any]:
    """Say what a call is compared by, and what is kept of it."""
    options: dict[str, Any] = {
        "match_on": ["method", "scheme", "host", "port", "path", "query", "body"],
        "decode_compressed_response": True,
        "before_record_request": without_secrets,
        "before_record_response": without_secrets_in_reply,
    }
    # Whichever way of recording is asked for: an old cassette stays until a new one is there to take its place.
    return options | ({"record_mode": "all", "drop_unused_requests": True} if recording else {})


@contextlib.contextmanager
def saved_only_if_all_is_well(cassette: Cassette) -> Iterator[None]:
    """Have nothing saved of a call that fails, where an error would take the place of an answer, nor any secret.

    It is looked for here and not when saving: VCR does not undo its patches after an error there.
    """
    try:
        yield
    except BaseException:
        cassette.dirty = False
        raise
    if found := leaks(serialize(copy.deepcopy(cassette._as_dict()), ReadableYaml)):
        cassette.dirty = False
        raise ValueError(f"Nothing was saved: the cassette would hold {', '.join(found)}.")


class ReadableYaml:
    """VCR's serializer: JSON bodies and forms as YAML, event streams as lists, everything else as it came."""

    @staticmethod
    def serialize(cassette: dict[str, Any]) -> str:
        """Write a cassette. Requests and responses have their bodies in the same form."""
        interactions = []
        for interaction in cassette["interactions"]:
            request, response = interaction["request"], interaction["response"]
            wanted = {"method": request["method"], "uri": request["uri"], "headers": request["headers"]}
            answered = {"status": response["status"], "headers": response["headers"]}
            interactions.append(
                {
                    "request": wanted | {"body": to_readable(request["body"])},
                    "response": answered | {"body": to_readable(response["body"]["string"])},
                }
            )
        return _dump({"interactions": interactions, "version": cassette["version"]})

    @staticmethod
    def deserialize(text: str) -> dict[str, Any]:
        """Read a cassette, to what VCR works with."""
        cassette = _load(text)
        for interaction in cassette["interactions"]:
            request, response = interaction["request"], interaction["response"]
            request["body"] = from_readable(request["body"])
            response["body"] = {"string": from_readable(response["body"])}
        return cassette


class WithProvenance(FilesystemPersister):
    """Files with a comment above: `emulator`, or `live` and the day."""

    @classmethod
    def load_cassette(cls, cassette_path, serializer):
        path = Path(cassette_path)
        if not path.is_file():
            raise CassetteNotFoundError
        return deserialize(path.read_text(encoding="utf-8"), serializer)

    @staticmethod
    def save_cassette(cassette_path, cassette_dict, serializer):
        hosts = {urlsplit(request.uri).hostname for request in cassette_dict["requests"]}
        today = dt.datetime.now(dt.UTC).date()
        provenance = "emulator" if hosts == {"127.0.0.1"} else f"live {today}"
        text = f"# provenance: {provenance}\n{serialize(cassette_dict, serializer)}"
        path = Path(cassette_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")


def to_readable(body: str | bytes | None) -> dict[str, Any]:
    """Put a body into the most readable form that loses nothing of it."""
    if body == "":
        return {}
    readable: dict[str, Any] = {"string": body}
    if not isinstance(body, str):
        return readable
    if (value := _parsed(body)) is not None:
        readable = {"json": value}
    elif form := _FORM.fullmatch(body):
        parts = [_part(part) for part in form[2].split(f"\r\n--{form[1]}\r\n")]
        readable = {"form": {"boundary": form[1], "parts": parts}}
    elif _STREAM.match(body):
        readable = {"events": [_event(event) for event in _EVENT.findall(body)]}
    return readable if _keeps(readable, body) else {"string": body}


def from_readable(readable: dict[str, Any]) -> str | bytes | None:
    """Undo `to_readable`, but for the white space between the parts of JSON."""
    if not readable:
        return ""
    match readable:
        case {"json": value}:
            return _json_text(value)
        case {"form": {"boundary": boundary, "parts": parts}}:
            return (
                "".join(f"--{boundary}\r\n{_part_text(part)}\r\n" for part in parts) + f"--{boundary}--\r\n"
            )
        case {"events": events}:
            return "".join(_event_text(event) for event in events)
        case {"string": body}:
            return body
    raise ValueError(f"A body is json, form, events or string, and not {', '.join(readable)}.")


def _parsed(text: str) -> dict[str, Any] | list[Any] | None:
    """Read an object or a list; a number or a string by itself is as readable as it is."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _part(text: str) -> dict[str, Any]:
    """Read a part of a form: its headers, and its JSON or text."""
    head, _, content = text.partition("\r\n\r\n")
    value = _parsed(content)
    return {"headers": head.split("\r\n")} | ({"text": content} if value is None else {"json": value})


def _part_text(part: dict[str, Any]) -> str:
    content = f"{_json_text(part['json'])}\n" if "json" in part else part["text"]
    return "\r\n".join(part["headers"]) + f"\r\n\r\n{content}"


def _event(text: str) -> dict[str, Any]:
    """Read one event of a stream: its `data` where it has nothing else, its whole `text` elsewhere."""
    if not (plain := _PLAIN_EVENT.fullmatch(text)):
        return {"text": text}
    value = _parsed(plain[1])
    return {"data": plain[1] if value is None else value}


def _event_text(event: dict[str, Any]) -> str:
    match event:
        case {"data": str(payload)}:  # never JSON text, which is parsed: it is [DONE], or something odd
            return f"data: {payload}\n\n"
        case {"data": value}:
            return f"data: {_json_text(value)}\n\n"
        case {"text": text}:
            return text
    raise ValueError(f"An event has data or text, and not {', '.join(event)}.")


def _keeps(readable: dict[str, Any], body: str) -> bool:
    """Whether nothing is lost but white space: not a digit, no key that comes twice, not the order of keys."""
    try:
        read = from_readable(_load(_dump(readable)))
        assert isinstance(read, str)
        read.encode()
        return _exact(read) == _exact(body)
    # A surrogate without its other half, 1e999999999999999999, a thousand brackets, ...
    except (ValueError, ArithmeticError, RecursionError, yaml.YAMLError):
        return False


def _exact(body: str) -> list[Any]:
    """Take a body apart so that any difference shows which is not white space."""
    pieces = _EVENT.findall(body) if _STREAM.match(body) else [body]
    return [_exact_json(plain[1]) if (plain := _PLAIN_EVENT.fullmatch(p)) else _exact_json(p) for p in pieces]


def _exact_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=tuple, parse_float=Decimal, parse_constant=str)
    except json.JSONDecodeError:
        return text


class _Loader(yaml.CSafeLoader):
    """Knows plain data only."""


class _Dumper(yaml.CSafeDumper):
    """Writes lines as lines, and short lists and mappings on one line."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def represent_mapping(self, tag, mapping, flow_style=None):
        node = super().represent_mapping(tag, mapping, flow_style)
        node.flow_style = _fits_on_a_line([part for pair in node.value for part in pair])
        return node

    def represent_sequence(self, tag, sequence, flow_style=None):
        node = super().represent_sequence(tag, sequence, flow_style)
        node.flow_style = _fits_on_a_line(node.value)
        return node


def _fits_on_a_line(nodes: list[yaml.Node]) -> bool:
    plain = all(not node.value or (isinstance(node, yaml.ScalarNode) and not node.style) for node in nodes)
    return plain and sum(len(node.value) + 4 for node in nodes) < _WIDTH * 3 // 4


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = None
    if re.search(r"[\r\x85\u2028\u2029\ufeff]", text):
        style = '"'  # line breaks that YAML would take for its own
    elif "\n" in text:
        style = "|"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _represent_text)


def _dump(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)


def _load(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
