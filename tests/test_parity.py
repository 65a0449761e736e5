"""However a question is asked, the answer is the same."""

import pytest

from llama_vision.demo import SAMPLE_IMAGES
from tests.call_styles import all_styles
from tests.emulator import completion

TOOLS = [
    {"type": "function", "function": {"name": name, "description": name, "parameters": {"type": "object"}}}
    for name in ("get_weather", "get_time")
]
CALLS = [("get_weather", {"city": "Zürich", "days": 3}), ("get_time", {})]
USAGE = {
    "prompt_tokens": 1650,
    "completion_tokens": 21,
    "prompt_tokens_details": {"cached_tokens": 1601},
    "estimated_cost": 0.0000268,
}
REPLIES = {
    "words": completion("Grüße, 日本 🦙\u2028!", usage=USAGE, model="m"),
    "calls": completion(calls=CALLS, usage=USAGE, model="m"),
    "words and calls": completion("I look.", calls=CALLS, usage=USAGE, model="m"),
    "cut off": completion("A cat sits on", finish_reason="length", usage=USAGE, model="m"),
    "without usage": completion("Hi", usage={}, model="m"),
    "a leaked stop token": completion("A cat.</s>", usage=USAGE, model="m"),
}


def assert_all_the_same(answers, expected):
    for style, answer in answers.items():
        assert answer == {name: expected[name] for name in answer}, style


@pytest.mark.parametrize("name", REPLIES)
def test_a_fixed_list_of_events(emulator, name):
    body = REPLIES[name]
    message = body["choices"][0]["message"]
    emulator.always(body)
    answers = all_styles(
        "What?",
        [SAMPLE_IMAGES["circle"].read_bytes()],
        TOOLS,
        url=emulator.base_url,
        provider="deepinfra",
        api_key=emulator.api_key,
    )
    assert len(answers) == len(emulator.requests) == 23
    calls = CALLS if "tool_calls" in message else []
    assert_all_the_same(
        answers,
        {
            "text": (message["content"] or "").removesuffix("</s>"),
            "calls": [(f"call_{number:08d}", *call) for number, call in enumerate(calls)],
            "usage": (1650, 21) if body["usage"] else None,
            "cost": 0.0000268 if body["usage"] else None,
            "end": body["choices"][0]["finish_reason"],
            "model": "m",
        },
    )


@pytest.mark.parametrize(
    ("question", "answer", "usage"),
    [
        ("Describe the image.", "A blue circle on a white background.", (15, 9)),
        ("What color is the circle?", "blue", (17, 2)),
    ],
)
def test_the_local_model(question, answer, usage):
    answers = all_styles(question, [SAMPLE_IMAGES["circle"].read_bytes()], provider="local")
    assert len(answers) == 23
    expected = {"text": answer, "calls": [], "usage": usage, "cost": None, "end": "stop", "model": "tiny"}
    assert_all_the_same(answers, expected)
