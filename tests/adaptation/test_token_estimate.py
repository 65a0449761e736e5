"""An estimate counts every part of a conversation, also what is called and what a call returned."""

from llama_vision import Image, Message, Text, ToolCall, ToolResult
from llama_vision.adaptation.token_estimate import estimate_tokens
from llama_vision.demo import SAMPLE_IMAGES

EMPTY = estimate_tokens((Message("user", ()),))


def cost(*parts):
    """What parts add to an empty message."""
    return estimate_tokens((Message("user", parts),)) - EMPTY


def test_a_call_counts_as_its_name_and_arguments():
    assert cost(ToolCall("call_1", "get_weather", '{"city": "Paris"}')) == cost(
        Text('get_weather{"city": "Paris"}')
    )


def test_a_result_counts_as_all_that_is_in_it():
    image = Image(SAMPLE_IMAGES["circle"].read_bytes(), "image/png")
    told = Text("It is sunny in Paris today.")
    assert cost(ToolResult("call_1", (told, image))) == cost(told) + cost(image)
    assert cost(image) > cost(told) > 0
