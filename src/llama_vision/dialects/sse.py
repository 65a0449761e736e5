"""Incremental decoder of server-sent events: bytes in, cut anywhere, `data:` payloads out.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream. It works on bytes, so that a
character may be cut in two, and so that only LF, CR and CRLF end a line: U+2028 and U+0085 may stand inside JSON.
"""

from llama_vision.core.errors import MalformedReplyError
from llama_vision.dialects.dialect import MAX_PAYLOAD_BYTES

BOM = b"\xef\xbb\xbf"
HEARTBEATS = frozenset({b"ping", b"heartbeat", b"keepalive", b"keep-alive"})
"""Names of events, and payloads, that gateways send to keep a connection open, where the standard has comments."""


class SseDecoder:
    """Decodes the event stream of one reply."""

    __slots__ = (
        "_at_start",
        "_data",
        "_event",
        "_num_data",
        "_num_partial",
        "_partial_line",
        "_skip_lf",
        "_too_large",
    )

    def __init__(self) -> None:
        self._partial_line: list[bytes] = []  # the pieces of an unfinished line
        self._num_partial = 0  # their bytes
        self._data: list[bytes] = []  # the data lines of an unfinished event
        self._num_data = 0  # their bytes
        self._event = b""
        self._skip_lf = False  # the last byte was a CR, whose LF may still come
        self._at_start = True
        self._too_large = False

    def feed(self, received: bytes) -> list[bytes]:
        """Decode the next bytes into the payloads that are complete now.

        The payload of an event named `error` becomes `{"error": payload}`, so that it is not mistaken for a part of the reply;
        an event named as a heartbeat is dropped.

        Raises:
            MalformedReplyError: An event or a line has more than `MAX_PAYLOAD_BYTES`. Where payloads were complete before it,
                they are returned first, and the error follows with the next call.
        """
        if self._too_large:
            raise _too_large()
        if not received:
            return []
        if self._skip_lf:
            self._skip_lf = False
            received = received.removeprefix(b"\n")
        if self._is_one_event(received):  # as most servers send them
            return [received[6:-2]]
        payloads: list[bytes] = []
        if self._partial_line and not (self._at_start or b"\n" in received or b"\r" in received):
            self._hold(received)
        else:
            self._process(self._take_partial_line() + received, payloads)
        if self._num_data + self._num_partial > MAX_PAYLOAD_BYTES:
            self._too_large = True
        if self._too_large and not payloads:
            raise _too_large()
        return payloads

    def close(self) -> list[bytes]:
        """End the stream, and return the payload of a last event that lacks its blank line.

        The standard drops it; providers have been seen to end that way, and the decoder of the payload notices a cut one.

        Raises:
            MalformedReplyError: As `feed`.
        """
        if self._too_large:
            raise _too_large()
        payloads: list[bytes] = []
        self._process_line(self._take_partial_line(), payloads)
        self._process_line(b"", payloads)
        return payloads

    def _is_one_event(self, received: bytes) -> bool:
        """Tell whether the bytes are an event of one data line, and begin where the last one ended."""
        return (
            received.startswith(b"data: ")
            and received.endswith(b"\n\n")
            and received.count(b"\n") == 2  # noqa: PLR2004 - its end, and the blank line
            and not (self._at_start or self._partial_line or self._data or self._event)
            and b"\r" not in received
            and len(received) <= MAX_PAYLOAD_BYTES
        )

    def _hold(self, piece: bytes) -> None:
        self._partial_line.append(piece)
        self._num_partial += len(piece)

    def _take_partial_line(self) -> bytes:
        if not self._partial_line:
            return b""
        line = b"".join(self._partial_line)
        self._partial_line, self._num_partial = [], 0
        return line

    def _process(self, text: bytes, payloads: list[bytes]) -> None:
        """Process the lines that are complete, and hold back what is not."""
        if self._at_start:
            if len(text) < len(BOM) and BOM.startswith(text):
                self._hold(text)
                return
            text = text.removeprefix(BOM)
            self._at_start = False
        lines = text.splitlines(keepends=True)
        if lines and not lines[-1].endswith((b"\n", b"\r")):
            self._hold(lines.pop())
        self._skip_lf = text.endswith(b"\r")
        for line in lines:
            self._process_line(line.rstrip(b"\r\n"), payloads)
            if self._too_large:
                return

    def _process_line(self, line: bytes, payloads: list[bytes]) -> None:
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line.startswith(b" ", 5) else line[5:])
            self._num_data += len(line)
        elif not line:
            if self._data and self._event not in HEARTBEATS:
                payload = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                payloads.append(b'{"error": ' + payload + b"}" if self._event == b"error" else payload)
            self._data = []
            self._num_data = 0
            self._event = b""
        elif line.startswith(b"event:"):
            self._event = line[6:].strip()
        elif line == b"data":
            self._data.append(b"")
            self._num_data += len(line)
        # Comments (keep-alives), ids and reconnection times are ignored.
        if self._num_data > MAX_PAYLOAD_BYTES or len(line) > MAX_PAYLOAD_BYTES:
            self._too_large = True


def _too_large() -> MalformedReplyError:
    return MalformedReplyError(
        f"The provider sent an event of more than {MAX_PAYLOAD_BYTES >> 20} MB, and the stream was given up."
    )
