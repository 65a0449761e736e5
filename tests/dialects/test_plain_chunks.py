"""A chunk that holds text alone is decoded without validation: nobody can tell, whatever stands in it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_vision.core.errors import LlamaVisionError
from llama_vision.dialects.chat_completions import decoder
from llama_vision.dialects.chat_completions.dialect import ChatCompletionsDialect

ODD = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.floats()
    | st.text(max_size=3)
    | st.just([])
    | st.just({})
)
TEXT = st.text(max_size=5) | st.sampled_from(["<|eot_id|>", "\ud83d", "\ude00", "<|start_header_id|>"])


def fields(required, **optional):
    """Make objects of which some fields are right, and some odd."""
    return st.fixed_dictionaries(required, optional={name: value | ODD for name, value in optional.items()})


DELTAS = fields(
    {"content": TEXT | ODD}, role=st.just("assistant"), refusal=TEXT, tool_calls=ODD, reasoning=TEXT
)
CHOICES = fields(
    {"delta": DELTAS | ODD},
    index=st.just(0),
    finish_reason=st.just("stop"),
    logprobs=ODD,
    message=ODD,
    error=ODD,
)
CHUNKS = fields(
    {"choices": st.lists(CHOICES, max_size=2) | ODD},
    id=st.just("chatcmpl-1"),
    object=st.just("chat.completion.chunk"),
    created=st.integers(),
    model=st.just("m"),
    usage=st.just({"prompt_tokens": 1, "completion_tokens": 2}),
    system_fingerprint=st.just("fp"),
    error=st.just({"message": "busy"}),
    x=ODD,
)
FIRST = b'{"id": "chatcmpl-1", "model": "m", "choices": [{"index": 0, "delta": {"role": "assistant"}}]}'


def told(payloads):
    """Return what a decoder tells of a stream, and how it ended."""
    reply, events = ChatCompletionsDialect().decoder("m", {}), []
    try:
        for payload in (FIRST, *payloads):
            events += reply.feed(payload)
        events += reply.close()
    except LlamaVisionError as error:
        events.append((type(error), str(error)))
    return events


@settings(deadline=None, max_examples=300)
@given(st.lists(CHUNKS, max_size=3).map(lambda chunks: [json.dumps(chunk).encode() for chunk in chunks]))
def test_a_stream_is_told_as_if_each_chunk_were_validated(payloads):
    quickly = told(payloads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "_plain_text", lambda payload: None)
        assert quickly == told(payloads)


@pytest.mark.parametrize("more", ["", ', "index": 0', ', "finish_reason": null, "logprobs": null'])
def test_the_chunks_that_servers_send_are_such(more):
    chunk = f'{{"id": "1", "object": "chat.completion.chunk", "model": "m", "choices": [{{"delta": {{"content": "Hi"}}{more}}}]}}'
    assert decoder._plain_text(chunk.encode()) == "Hi"
