"""The samples on the providers' own pages, and a recorded stream, give the replies they show."""

import json

import pytest

from llama_vision.core.reply import Reply
from llama_vision.core.usage import Usage
from llama_vision.dialects.sse import SseDecoder
from tests.dialects.replies import reply_to

AIMLAPI_11B = {
    "id": "npQgAp8-3NKUce-92da972b0f375eea",
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "logprobs": None,
            "message": {
                "role": "assistant",
                "content": "Hello! How can I assist you today?",
                "tool_calls": [],
            },
        }
    ],
    "created": 1744207854,
    "model": "meta-llama/Llama-3.2-11B-Vision-Instruct-Turbo",
    "usage": {"prompt_tokens": 4, "completion_tokens": 4, "total_tokens": 8},
}
AIMLAPI_90B = AIMLAPI_11B | {
    "id": "npQeQJu-2j9zxn-92da8ec6698de8e9",
    "model": "meta-llama/Llama-3.2-90B-Vision-Instruct-Turbo",
    "usage": {"prompt_tokens": 28, "completion_tokens": 25, "total_tokens": 53},
}
AIGATEWAY = {
    "id": "chatcmpl-abc123",
    "object": "chat.completion",
    "created": 1776947082,
    "model": "meta/llama-3.2-11b-vision-instruct",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello! How can I help you today?"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 24, "completion_tokens": 12, "total_tokens": 36},
}
DEEPINFRA = {
    "id": "chatcmpl-guMTxWgpFf",
    "object": "chat.completion",
    "created": 1694623155,
    "model": "meta-llama/Llama-3.2-11B-Vision-Instruct",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": " Hello! It's nice to meet you."},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 15, "completion_tokens": 16, "total_tokens": 31, "estimated_cost": 0.0000268},
}

AIGATEWAY_STREAM = """\
data: {"choices":[{"index":0,"delta":{"role":"assistant"},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{"content":"!"},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}

data: [DONE]
"""

_DEEPINFRA_HEAD = (
    '"id": "Rc5hsIPHOSfMP3rNSFUw9tfR", "object": "chat.completion.chunk", "created": 1694623354, '
    '"model": "meta-llama/Llama-3.2-11B-Vision-Instruct"'
)
DEEPINFRA_STREAM = (
    "".join(
        f'data: {{{_DEEPINFRA_HEAD}, "choices": [{{"index": 0, "delta": {{"role": "assistant", '
        f'"content": {json.dumps(content)}}}, "finish_reason": null}}]}}\n\n'
        for content in (" ", " Hi", "!", "", "</s>")
    )
    + f'data: {{{_DEEPINFRA_HEAD}, "choices": [{{"index": 0, "delta": {{}}, "finish_reason": "stop"}}]}}\n\n'
    + "data: [DONE]\n\n"
)

_CLOUDFLARE_HEAD = (
    '"id":"id-1778255778230","created":1778255778,"model":"@cf/meta/llama-3.1-8b-instruct",'
    '"object":"chat.completion.chunk"'
)
CLOUDFLARE_STREAM = f"""\
data: {{{_CLOUDFLARE_HEAD},"choices":[{{"index":0,"delta":{{"content":"Hello"}}}}]}}

data: {{{_CLOUDFLARE_HEAD},"choices":[{{"index":0,"delta":{{}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":45,"completion_tokens":2,"total_tokens":47}}}}

data: {{{_CLOUDFLARE_HEAD},"choices":[{{"index":0,"delta":{{}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0,"prompt_tokens_details":{{"cached_tokens":0}}}}}}

data: [DONE]
"""


@pytest.mark.parametrize(
    ("body", "text", "usage"),
    [
        (AIMLAPI_11B, "Hello! How can I assist you today?", Usage(4, 4)),
        (AIMLAPI_90B, "Hello! How can I assist you today?", Usage(28, 25)),
        (AIGATEWAY, "Hello! How can I help you today?", Usage(24, 12)),
        (DEEPINFRA, " Hello! It's nice to meet you.", Usage(15, 16, cost_usd=0.0000268)),
    ],
    ids=["aimlapi-11b", "aimlapi-90b", "aigateway", "deepinfra"],
)
def test_a_whole_body(body, text, usage):
    assert reply_to(body) == Reply(
        text=text, usage=usage, finish_reason="stop", model=body["model"], id=body["id"]
    )


@pytest.mark.parametrize(
    ("stream", "reply"),
    [
        (AIGATEWAY_STREAM, Reply(text="Hello!", finish_reason="stop", model="asked")),
        (
            DEEPINFRA_STREAM,
            Reply(
                text="  Hi!",
                finish_reason="stop",
                model="meta-llama/Llama-3.2-11B-Vision-Instruct",
                id="Rc5hsIPHOSfMP3rNSFUw9tfR",
            ),
        ),
        (
            CLOUDFLARE_STREAM,
            Reply(
                text="Hello",
                usage=Usage(45, 2, 0),
                finish_reason="stop",
                model="@cf/meta/llama-3.1-8b-instruct",
                id="id-1778255778230",
            ),
        ),
    ],
    ids=["aigateway", "deepinfra", "cloudflare"],
)
def test_a_stream(stream, reply):
    decoder = SseDecoder()
    assert reply_to(*decoder.feed(stream.encode()), *decoder.close()) == reply
