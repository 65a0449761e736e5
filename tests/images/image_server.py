"""A web server on this machine for tests of downloads, which answers just the bytes it is told to."""

import io
import socketserver
import threading

import PIL.Image


def encoded_png():
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (7, 5), "orange").save(buffer, "PNG")
    return buffer.getvalue()


PNG = encoded_png()


class ImageServer(socketserver.ThreadingTCPServer):
    """Counts connections. An answer is a list of bytes to send and seconds to wait."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 100

    def __init__(self, context=None):
        super().__init__(("127.0.0.1", 0), None)
        self.port = self.server_address[1]
        self.connections, self.heads, self.answers = 0, [], {}
        self._context, self._ending = context, threading.Event()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._ending.set()
        self.shutdown()
        self.server_close()

    def url(self, path="/a.png", host="127.0.0.1"):
        return f"{'https' if self._context else 'http'}://{host}:{self.port}{path}"

    def finish_request(self, request, client_address):
        self.connections += 1
        try:
            connection = self._context.wrap_socket(request, server_side=True) if self._context else request
            with connection, connection.makefile("rb") as reader:
                self._answer(connection, reader)
        except OSError:
            pass  # the other side has heard enough, or does not trust us

    def _answer(self, connection, reader):
        lines = []
        while (line := reader.readline()).strip():
            lines.append(line.decode("ascii").rstrip())
        self.heads.append(lines)
        for piece in self.answers[lines[0].split()[1]]:
            if isinstance(piece, bytes):
                connection.sendall(piece)
            elif self._ending.wait(piece):
                return


def answer(body, status="200 OK", *, length=True, **headers):
    """An HTTP answer with its length, or with the connection's end as its own."""
    headers |= {"Content-Length": len(body)} if length else {}
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def redirect(to, status="302 Found"):
    return [answer(b"", status, Location=to)]
