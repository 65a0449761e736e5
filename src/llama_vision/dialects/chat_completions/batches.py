"""OpenAI's batch API on the wire: files of requests, batches, and files of results.

https://docs.deepinfra.com/batch/introduction and https://aigateway.sh/docs/batch document the same (2026-11-28), but for failed
requests: DeepInfra has `error` in place of `response`, AIGateway a `response` with its status.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic_core import from_json, to_json

from llama_vision.core.errors import MalformedReplyError
from llama_vision.core.json_types import as_mapping
from llama_vision.dialects.dialect import WireRequest

_FINAL = frozenset({"completed", "failed", "expired", "cancelled"})
_ID = re.compile(r"[\w.-]*\w[\w.-]*", re.ASCII)
_JSON_LINES = "application/jsonl"


@dataclass(frozen=True, slots=True)
class WireBatch:
    """A batch as the provider describes it.

    Attributes:
        id: Its id.
        status: Such as `in_progress`.
        input_file_id: The file of its requests.
        result_file_ids: Files of results, once there are some.
        num_requests: How many requests it has; None until the provider has counted.
        num_completed: How many are answered.
        num_failed: How many failed.
        errors: What is wrong with the file, where its validation failed.
    """

    id: str
    status: str
    input_file_id: str = ""
    result_file_ids: tuple[str, ...] = ()
    num_requests: int | None = None
    num_completed: int = 0
    num_failed: int = 0
    errors: str = ""

    @property
    def done(self) -> bool:
        """Whether nothing more happens to it."""
        return self.status in _FINAL


@dataclass(frozen=True, slots=True)
class WireResult:
    """The result of one request: a response, or an error without one.

    Attributes:
        index: The request's place in the batch.
        status_code: The HTTP status; None without a response.
        body: The response's body; without one a body with the error.
        error_code: The error's code, such as `cancelled`; empty with a response.
    """

    index: int
    status_code: int | None
    body: bytes
    error_code: str = ""


def is_id(text: str) -> bool:
    """Tell whether a text can be an id, which becomes part of an address."""
    return _ID.fullmatch(text) is not None


def upload_file(endpoint: str, bodies: Sequence[bytes]) -> WireRequest:
    """Make the call that uploads a file of requests.

    Args:
        endpoint: The `url` of each request.
        bodies: Of the requests, as JSON.
    """
    lines = b"\n".join(
        b'{"custom_id":"%d","method":"POST","url":"%s","body":%s}' % (index, endpoint.encode(), body)
        for index, body in enumerate(bodies)
    )
    boundary = b"llama-vision-" + hashlib.sha256(lines).hexdigest()[:16].encode()
    form = b"Content-Disposition: form-data; name="
    parts = (
        *(b"--", boundary, b"\r\n", form, b'"purpose"\r\n\r\nbatch\r\n'),
        *(b"--", boundary, b"\r\n", form, b'"file"; filename="requests.jsonl"\r\n'),
        *(b"Content-Type: ", _JSON_LINES.encode(), b"\r\n\r\n", lines, b"\n\r\n--", boundary, b"--\r\n"),
    )
    content_type = f"multipart/form-data; boundary={boundary.decode()}"
    return WireRequest("/files", b"".join(parts), {"content-type": content_type})


def create_batch(endpoint: str, file_id: str) -> WireRequest:
    """Make the call that starts a batch."""
    return WireRequest(
        "/batches",
        to_json({"input_file_id": file_id, "endpoint": endpoint, "completion_window": "24h"}),
    )


def get_batch(batch_id: str) -> WireRequest:
    """Make the call that looks after a batch."""
    return WireRequest(f"/batches/{batch_id}", method="GET")


def cancel_batch(batch_id: str) -> WireRequest:
    """Make the call that cancels a batch."""
    return WireRequest(f"/batches/{batch_id}/cancel")


def list_batches(after: str) -> WireRequest:
    """Make the call that lists batches: those after the one with this id, unless it is empty."""
    return WireRequest(f"/batches?limit=100{f'&after={after}' if after else ''}", method="GET")


def get_file(file_id: str) -> WireRequest:
    """Make the call that downloads a file."""
    return WireRequest(f"/files/{file_id}/content", method="GET")


def parse_file_id(payload: bytes) -> str:
    """Read the id of an uploaded file.

    Raises:
        MalformedReplyError: There is none.
    """
    return _id(_parse(payload), payload)


def parse_batch(payload: bytes) -> WireBatch:
    """Read a batch.

    Raises:
        MalformedReplyError: It is none.
    """
    return _batch(_parse(payload), payload)


def parse_batches(payload: bytes) -> tuple[list[WireBatch], str]:
    """Read a page of a list of batches, and the id to go on after; empty on the last page.

    Raises:
        MalformedReplyError: It is no list of batches.
    """
    fields = _parse(payload)
    data: Any = fields.get("data")
    if not isinstance(data, list):
        raise _unreadable(payload)
    batches = [_batch(as_mapping(entry), payload) for entry in cast("list[object]", data)]
    return batches, batches[-1].id if batches and fields.get("has_more") else ""


def parse_result(line: bytes) -> WireResult:
    """Read a line of a file of results.

    Raises:
        MalformedReplyError: It is none.
    """
    fields = _parse(line)
    custom_id, response = str(fields.get("custom_id")), as_mapping(fields.get("response"))
    if not (custom_id.isascii() and custom_id.isdigit()):
        raise _unreadable(line)
    if response:
        return WireResult(
            int(custom_id), int(response.get("status_code") or 200), to_json(response.get("body"))
        )
    error = as_mapping(fields.get("error"))
    return WireResult(int(custom_id), None, to_json({"error": error}), str(error.get("code") or ""))


def _batch(fields: Any, payload: bytes) -> WireBatch:
    counts = as_mapping(fields.get("request_counts"))
    problems: Any = as_mapping(fields.get("errors")).get("data")
    return WireBatch(
        id=_id(fields, payload),
        status=str(fields.get("status")),
        input_file_id=str(fields.get("input_file_id") or ""),
        result_file_ids=tuple(
            str(file_id) for name in ("output_file_id", "error_file_id") if (file_id := fields.get(name))
        ),
        num_requests=counts.get("total") or None,
        num_completed=counts.get("completed") or 0,
        num_failed=counts.get("failed") or 0,
        errors="; ".join(_problem(as_mapping(problem)) for problem in problems or ()),
    )


def _problem(fields: Any) -> str:
    line = fields.get("line")
    return f"{'' if line is None else f'line {line}: '}{fields.get('message') or fields.get('code')}"


def _id(fields: Any, payload: bytes) -> str:
    found = fields.get("id")
    if not isinstance(found, str) or not is_id(found):
        raise _unreadable(payload)
    return found


def _parse(payload: bytes) -> Any:
    try:
        return as_mapping(from_json(payload))
    except ValueError as error:
        raise _unreadable(payload) from error


def _unreadable(payload: bytes) -> MalformedReplyError:
    return MalformedReplyError(
        f"The batch API's answer can't be read: {payload[:200].decode(errors='replace')!r}"
    )
