"""Requests of many kinds to the tiny model, for one batch."""

from llama_vision import (
    ChatRequest,
    Message,
    ResponseFormat,
    SamplingParams,
    Text,
    Tool,
    ToolChoice,
    image_from_any,
)
from tests.drawing import one_shape

SHORT = SamplingParams(max_tokens=48, temperature=0)


def ask(text, *images, sampling=SHORT, **options):
    parts = (*(image_from_any(image) for image in images), Text(text))
    return ChatRequest("tiny", (Message("user", parts),), sampling=sampling, **options)


def two_turns(first, second, text):
    """An image in each of two turns: tokens after the second no longer attend to the first."""
    return ChatRequest(
        "tiny",
        (
            Message("user", (image_from_any(first), Text("What color is it?"))),
            Message("assistant", (Text("red"),)),
            Message("user", (Text("And here?"), image_from_any(second), Text(text))),
        ),
        sampling=SHORT,
    )


def mixed(seed, *, guided=True):
    """One of many kinds of requests: with 0, 1 and 2 images, short and long, and some with guided decoding."""
    image, color, shape = one_shape(seed)
    other = one_shape(seed + 500)[0]
    city = Tool("weather", "Tell the weather", {"properties": {"city": {"type": "string", "maxLength": 9}}})
    form = ResponseFormat("json_schema", schema={"properties": {"color": {"type": "string", "maxLength": 8}}})
    kinds = [
        ask(f"What color is the {shape}?", image),
        ask("Say hi"),
        ask("Describe the image.", image, other),
        ask("Repeat: " + "Paris London Berlin " * (1 + seed % 7)),
        two_turns(image, other, "Describe the image."),
        ask(f"What shape is {color}? Answer in many words, and say where it is.", image),
        ask("What color is it?", image, response_format=form),
        ask("What is the weather for Rome?", tools=(city,), tool_choice=ToolChoice("required")),
    ]
    return kinds[seed % (8 if guided else 6)]
