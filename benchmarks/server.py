"""A minimal loopback server: it replies to every POST with the same prepared bytes.

Run by the benchmarks as a process of its own, so that only the client's processor time is measured. The path selects
the reply: `/whole/chat/completions`, or `/N/chat/completions` for a stream of N chunks.
"""

import asyncio
import functools
import json

HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
USAGE = {"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46}


def whole():
    message = {"role": "assistant", "content": "Hello! How can I help you today?"}
    body = {**HEAD, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": USAGE}
    encoded = json.dumps(body).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(encoded)}\r\n\r\n"
    return head.encode() + encoded


def event(choices, **more):
    text = f"data: {json.dumps({**HEAD, 'choices': choices, **more})}\n\n".encode()
    return f"{len(text):x}\r\n".encode() + text + b"\r\n"


@functools.cache
def streamed(chunks):
    parts = [b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"]
    parts += [
        event([{"index": 0, "delta": {"content": f" word{n}"}, "finish_reason": None}]) for n in range(chunks)
    ]
    parts.append(event([{"index": 0, "delta": {}, "finish_reason": "stop"}], usage=USAGE))
    parts.append(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
    return b"".join(parts)


async def serve(reader, writer):
    answer_whole = whole()
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            kind = head.split(b" ")[1].split(b"/")[1].decode()
            writer.write(answer_whole if kind == "whole" else streamed(int(kind)))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
