"""Files and batches of a scripted server, in OpenAI's manner."""

import json
import threading
from collections.abc import Callable
from typing import Any

Reply = tuple[int, bytes]


class ScriptedBatches:
    """What was uploaded, and the batches made of it. A batch is answered as soon as it is created, in the order of its requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[str, bytes] = {}
        self._batches: dict[str, dict[str, Any]] = {}

    def reply(
        self, method: str, path: str, content: bytes, answer: Callable[[dict[str, Any]], Reply]
    ) -> Reply | None:
        """Reply to a call.

        Args:
            method: The HTTP method.
            path: Below the base URL.
            content: The call's body.
            answer: Answers a request of a batch, by its body.

        Returns:
            Status and body; None where there is nothing at the path.
        """
        with self._lock:
            match method, *path.partition("?")[0].strip("/").split("/"):
                case "POST", "files":
                    lines = (line for line in content.split(b"\n") if line.startswith(b'{"custom_id"'))
                    return 200, _encode({"id": self._keep(b"\n".join(lines)), "object": "file"})
                case "GET", "files", file_id, "content" if file_id in self._files:
                    return 200, self._files[file_id]
                case "POST", "batches":
                    return 200, _encode(self._create(json.loads(content)["input_file_id"], answer))
                case "GET", "batches":
                    return 200, _encode({"data": list(self._batches.values()), "has_more": False})
                case ("GET", "batches", batch_id) | ("POST", "batches", batch_id, "cancel") if (
                    batch_id in self._batches
                ):
                    return 200, _encode(self._batches[batch_id])
                case _:
                    return None

    def _create(self, file_id: str, answer: Callable[[dict[str, Any]], Reply]) -> dict[str, Any]:
        rows: list[bytes] = []
        for line in filter(None, self._files[file_id].split(b"\n")):
            request = json.loads(line)
            status, body = answer(request["body"])
            response = {"status_code": status, "body": json.loads(body)}
            rows.append(_encode({"custom_id": request["custom_id"], "response": response, "error": None}))
        batch_id = f"batch_{len(self._batches) + 1}"
        self._batches[batch_id] = {
            "id": batch_id,
            "object": "batch",
            "status": "completed",
            "input_file_id": file_id,
            "output_file_id": self._keep(b"\n".join(rows)),
            "request_counts": {"total": len(rows), "completed": len(rows), "failed": 0},
        }
        return self._batches[batch_id]

    def _keep(self, content: bytes) -> str:
        file_id = f"file_{len(self._files) + 1}"
        self._files[file_id] = content
        return file_id


def _encode(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode()
