"""The same answer gives the same reply, whole or in whatever pieces."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dialects.replies import DONE, chunk, reply_to, whole

CALLS = [
    {"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}},
    {"id": "call_b", "type": "function", "function": {"name": "now", "arguments": ""}},
    {"id": "call_c", "type": "function", "function": {"name": "weather", "arguments": {"city": "Zürich"}}},
]
USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 4},
    "cost": 0.01,
}

ANSWERS = {
    "words": ({"content": " Hello 🦙!"}, "stop", USAGE),
    "stop tokens": ({"content": "a </s> b <|eot_id|></s>"}, "stop", None),
    "cut short": ({"content": "Once upon <|eot"}, "length", USAGE),
    "calls": ({"content": None, "tool_calls": CALLS}, "tool_calls", USAGE),
    "words and a call": ({"content": "Let me see.", "tool_calls": CALLS[:1]}, "tool_calls", None),
    "a refusal": ({"content": None, "refusal": "I won't."}, "content_filter", USAGE),
    "no reason": ({"content": "Hi"}, None, None),
    "a call and no reason": ({"tool_calls": CALLS[2:]}, None, None),
    "no words": ({"content": ""}, "stop", USAGE),
    "nothing before the limit": ({"content": None}, "length", USAGE),
    "an unknown reason": ({"content": "Hi", "tool_calls": []}, "model_length", None),
}


def parts(text, size):
    return [text[start : start + size] for start in range(0, len(text), size)]


def stream_of(message, finish_reason, usage, size):
    """Send the same answer as a stream whose texts have at most `size` letters."""
    chunks = [chunk({"role": "assistant"})]
    for field in ("content", "refusal"):
        chunks += [chunk({field: piece}) for piece in parts(message.get(field) or "", size)]
    for index, call in enumerate(message.get("tool_calls") or []):
        head, arguments = call["function"]["name"], call["function"]["arguments"]
        chunks.append(
            chunk({"tool_calls": [call | {"index": index, "function": {"name": head, "arguments": ""}}]})
        )
        # A host that gives objects gives them at once; as text they would be the host's own choice of spaces.
        pieces = parts(arguments, size) if isinstance(arguments, str) else [arguments]
        chunks += [
            chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}) for piece in pieces
        ]
    chunks.append(chunk(finish_reason=finish_reason))
    return [*chunks, {"choices": [], "usage": usage}, DONE]


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize(("message", "finish_reason", "usage"), ANSWERS.values(), ids=ANSWERS.keys())
def test_a_stream_says_what_the_whole_body_says(message, finish_reason, usage, size):
    body = whole(message, finish_reason=finish_reason, usage=usage)
    assert reply_to(*stream_of(message, finish_reason, usage, size)) == reply_to(body)


@settings(deadline=None)
@given(
    st.text(alphabet=st.sampled_from("ab <|>/se_otid🦙")),
    st.lists(st.tuples(st.text(min_size=1), st.dictionaries(st.text(), st.integers() | st.text()))),
    st.integers(min_value=1, max_value=20),
)
def test_any_answer_says_the_same_in_pieces(text, calls, size):
    tool_calls = [
        {"id": f"call_{number}", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for number, (name, arguments) in enumerate(calls)
    ]
    message = {"content": text, "tool_calls": tool_calls}
    streamed = reply_to(*stream_of(message, "stop", USAGE, size))
    assert dataclasses.asdict(streamed) == dataclasses.asdict(reply_to(whole(message, usage=USAGE)))
    assert [call.parsed() for call in streamed.tool_calls] == [arguments for _, arguments in calls]
