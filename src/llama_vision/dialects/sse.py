"""Incremental decoder of server-sent events: bytes in, cut anywhere, `data:` payloads out.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream. It works on bytes, so that a
character may be cut in two, and so that only LF, CR and CRLF end a line: U+2028 and U+0085 may stand inside JSON.
"""

BOM = b"\xef\xbb\xbf"
HEARTBEATS = frozenset({b"ping", b"heartbeat", b"keepalive", b"keep-alive"})
"""Names of events, and payloads, that gateways send to keep a connection open, where the standard has comments."""


class SseDecoder:
    """Decodes the event stream of one reply."""

    __slots__ = ("_at_start", "_data", "_event", "_partial_line", "_skip_lf")

    def __init__(self) -> None:
        self._partial_line: bytes = b""  # an unfinished line
        self._data: list[bytes] = []  # the data lines of an unfinished event
        self._event = b""
        self._skip_lf = False  # the last byte was a CR, whose LF may still come
        self._at_start = True

    def feed(self, received: bytes) -> list[bytes]:
        """Decode the next bytes into the payloads that are complete now.

        The payload of an event named `error` becomes `{"error": payload}`, so that it is not mistaken for a part of the reply;
        an event named as a heartbeat is dropped.
        """
        if not received:
            return []
        if self._skip_lf:
            received = received.removeprefix(b"\n")
        text = self._partial_line + received if self._partial_line else received
        if self._at_start:
            if len(text) < len(BOM) and BOM.startswith(text):
                self._partial_line = text
                return []
            text = text.removeprefix(BOM)
            self._at_start = False
        lines = text.splitlines(keepends=True)
        self._partial_line = lines.pop() if lines and not lines[-1].endswith((b"\n", b"\r")) else b""
        self._skip_lf = text.endswith(b"\r")
        payloads: list[bytes] = []
        for line in lines:
            self._process_line(line.rstrip(b"\r\n"), payloads)
        return payloads

    def close(self) -> list[bytes]:
        """End the stream, and return the payload of a last event that lacks its blank line.

        The standard drops it; providers have been seen to end that way, and the decoder of the payload notices a cut one.
        """
        payloads: list[bytes] = []
        self._process_line(self._partial_line, payloads)
        self._process_line(b"", payloads)
        self._partial_line = b""
        return payloads

    def _process_line(self, line: bytes, payloads: list[bytes]) -> None:
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line.startswith(b" ", 5) else line[5:])
        elif not line:
            if self._data and self._event not in HEARTBEATS:
                payload = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                payloads.append(b'{"error": ' + payload + b"}" if self._event == b"error" else payload)
            self._data = []
            self._event = b""
        elif line.startswith(b"event:"):
            self._event = line[6:].strip()
        elif line == b"data":
            self._data.append(b"")
        # Comments (keep-alives), ids and reconnection times are ignored.
