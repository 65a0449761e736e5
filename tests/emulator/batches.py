"""OpenAI's files and batches, as DeepInfra (https://docs.deepinfra.com/batch) and AIGateway (aigateway.sh/docs/batch) document them.

A batch comes nearer to its end each time that somebody looks after it.
"""

import email
import email.policy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.emulator.answers import Answer, json_answer
from tests.emulator.received import Received

ROUTES = (
    ("POST", "/files"),
    ("GET", "/files/{id}/content"),
    ("POST", "/batches"),
    ("GET", "/batches"),
    ("GET", "/batches/{id}"),
    ("POST", "/batches/{id}/cancel"),
)
_ENDPOINT = "/v1/chat/completions"
_CREATED_AT = 1_711_471_533
_STEPS = ("validating", "in_progress", "finalizing")

Refuse = Callable[[int, str], Answer]
Reply = Callable[[Received], Answer]


@dataclass
class Batches:
    """What an account has.

    Attributes:
        most_requests: Of one batch.
        most_bytes: Of an input file.
        created: The status of what was created.
        error_rows: Whether a failed request has an `error` in place of a response.
        one_model: Whether all requests have to ask the same model.
        looks: How often a batch is looked after until it is done.
        page: How many batches a list has at most.
        asked: The requests of all batches, as they were run.
        before: Called with the method and path before each call is carried out; what it returns is the answer.
        after: Called the same afterwards.
        ends: The status that batches end with.
        answered: How many requests of a batch are answered before it is cancelled or expires; None for all.
    """

    most_requests: int
    most_bytes: int = 512_000_000
    created: int = 200
    error_rows: bool = True
    one_model: bool = True
    looks: int = 1
    page: int = 100
    asked: list[Received] = field(default_factory=list)
    before: Callable[[str], Answer | None] = lambda call: None
    after: Callable[[str], Answer | None] = lambda call: None
    ends: str = "completed"
    answered: int | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    _looked: dict[str, int] = field(default_factory=dict)

    def answer(self, received: Received, path: str, reply: Reply, refuse: Refuse) -> Answer:
        """Carry out a call.

        Args:
            received: The call.
            path: Below the base path.
            reply: Answers a request of a batch.
            refuse: Makes an error.
        """
        call = f"{received.method} {path}"
        if (instead := self.before(call)) is not None:
            return instead
        match received.method, *path.strip("/").split("/"):
            case "POST", "files":
                answer = self._upload(received, refuse)
            case "GET", "files", file_id, "content":
                content = self.files.get(file_id)
                answer = refuse(404, f"No such file: {file_id}") if content is None else _lines(content)
            case "POST", "batches":
                answer = self._create(received, reply, refuse)
            case "GET", "batches":
                answer = self._list(received)
            case "GET", "batches", batch_id:
                answer = self._look(batch_id, reply, refuse)
            case "POST", "batches", batch_id, "cancel":
                answer = self._cancel(batch_id, refuse)
            case _:
                answer = refuse(404, f"Unknown endpoint: {path}")
        return self.after(call) or answer

    def _upload(self, received: Received, refuse: Refuse) -> Answer:
        head = f"content-type: {received.headers['content-type']}\r\n\r\n".encode()
        form = email.message_from_bytes(head + received.content, policy=email.policy.HTTP)
        parts = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}
        if set(parts) != {"purpose", "file"} or parts["purpose"].get_content().strip() != "batch":
            return refuse(400, "A form with a purpose and a file is expected")
        content = parts["file"].get_payload(decode=True)
        if len(content) > self.most_bytes:
            return refuse(413, "The file is too large")
        file_id = self._keep(content)
        described = {
            "id": file_id,
            "object": "file",
            "bytes": len(content),
            "created_at": _CREATED_AT,
            "filename": parts["file"].get_filename(),
            "purpose": "batch",
        }
        return json_answer(described, self.created)

    def _create(self, received: Received, reply: Reply, refuse: Refuse) -> Answer:
        body = received.body
        if body.get("input_file_id") not in self.files:
            return refuse(400, f"No such file: {body.get('input_file_id')}")
        if body.get("endpoint") != _ENDPOINT or body.get("completion_window") != "24h":
            return refuse(400, "Unknown endpoint or completion_window")
        batch_id = f"batch_{len(self.batches) + 1}"
        self.batches[batch_id] = {
            "id": batch_id,
            "object": "batch",
            "endpoint": _ENDPOINT,
            "errors": None,
            "input_file_id": body["input_file_id"],
            "completion_window": "24h",
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": _CREATED_AT,
            "request_counts": None,
            "metadata": body.get("metadata"),
        }
        return json_answer(self.batches[batch_id], self.created)

    def _list(self, received: Received) -> Answer:
        ids = list(self.batches)
        start = ids.index(received.query["after"]) + 1 if "after" in received.query else 0
        most = min(self.page, int(received.query.get("limit", 20)))
        data = [self.batches[batch_id] for batch_id in ids[start : start + most]]
        listed = {"object": "list", "data": data, "has_more": len(ids) > start + most}
        if data:
            listed |= {"first_id": data[0]["id"], "last_id": data[-1]["id"]}
        return json_answer(listed)

    def _look(self, batch_id: str, reply: Reply, refuse: Refuse) -> Answer:
        batch = self.batches.get(batch_id)
        if batch is None:
            return refuse(404, f"No such batch: {batch_id}")
        if batch["status"] == "cancelling":
            self._run(batch, "cancelled", reply)
        elif batch["status"] == "validating" and (problems := self._problems(batch)):
            batch |= {"status": "failed", "errors": {"object": "list", "data": problems}}
        elif batch["status"] in _STEPS:
            self._looked[batch_id] = looked = self._looked.get(batch_id, 0) + 1
            if looked >= self.looks:
                self._run(batch, self.ends, reply)
            else:
                batch["status"] = _STEPS[min(looked, 2)]
                batch["request_counts"] = {"total": len(self._requests(batch)), "completed": 0, "failed": 0}
        return json_answer(batch)

    def _cancel(self, batch_id: str, refuse: Refuse) -> Answer:
        batch = self.batches.get(batch_id)
        if batch is None:
            return refuse(404, f"No such batch: {batch_id}")
        if batch["status"] in _STEPS:
            batch["status"] = "cancelling"
        return json_answer(batch)

    def _problems(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        requests = self._requests(batch)
        ids = [request["custom_id"] for request in requests]
        models = {request["body"].get("model") for request in requests}
        found = []
        if len(requests) > self.most_requests:
            found.append({"code": "too_many", "message": f"More than {self.most_requests} requests"})
        if len(set(ids)) < len(ids):
            found.append({"code": "duplicate_custom_id", "message": "custom_id is not unique"})
        if self.one_model and len(models) > 1:
            found.append({"code": "mixed_models", "message": "All requests must use the same model"})
        for line, request in enumerate(requests, 1):
            if request["method"] != "POST" or request["url"] != batch["endpoint"]:
                found.append({"code": "invalid_url", "line": line, "message": "url has to be the endpoint"})
        return found

    def _run(self, batch: dict[str, Any], status: str, reply: Reply) -> None:
        """Answer the requests, in another order than theirs, as neither promises any."""
        requests = self._requests(batch)
        most = len(requests) if status == "completed" or self.answered is None else self.answered
        good, bad = [], []
        for request in reversed(requests[:most]):
            self._answer_line(request, reply, good, bad)
        if status != "completed":
            for request in requests[most:]:
                error = {"code": status, "message": f"The batch was {status}"}
                bad.append(_row(request, None, error))
        batch |= {
            "status": status,
            "output_file_id": self._keep(b"".join(good)) if good else None,
            "error_file_id": self._keep(b"".join(bad)) if bad else None,
            "request_counts": {"total": len(requests), "completed": len(good), "failed": len(bad)},
        }

    def _answer_line(
        self, request: dict[str, Any], reply: Reply, good: list[bytes], bad: list[bytes]
    ) -> None:
        line = Received(
            method="BATCH",
            path=request["url"],
            headers={"content-type": "application/json"},
            content=json.dumps(request["body"]).encode(),
            client_port=0,
            at=0.0,
        )
        self.asked.append(line)
        answer = reply(line)
        body = json.loads(b"".join(step for step in answer.steps if isinstance(step, bytes)))
        response = {"status_code": answer.status, "body": body}
        if answer.status and answer.status < 300:
            good.append(_row(request, response, None))
        elif self.error_rows:
            # The shape of the documentation, whose only example has this code.
            bad.append(_row(request, None, {"code": "invalid_request", "message": json.dumps(body)}))
        else:
            bad.append(_row(request, response, None))

    def _requests(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.files[batch["input_file_id"]].split(b"\n") if line.strip()]

    def _keep(self, content: bytes) -> str:
        file_id = f"file_{len(self.files) + 1}"
        self.files[file_id] = content
        return file_id


def _row(request: dict[str, Any], response: Any, error: Any) -> bytes:
    custom_id = request["custom_id"]
    row = {"id": f"batch_req_{custom_id}", "custom_id": custom_id, "response": response, "error": error}
    return json.dumps(row).encode() + b"\n"


def _lines(content: bytes) -> Answer:
    return Answer((content,), 200, {"content-type": "application/jsonl", "content-length": str(len(content))})
