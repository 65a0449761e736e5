"""The arguments of a tool call, read."""

import time

import pytest

from llama_vision.core.events import ToolCallDelta
from llama_vision.core.messages import ToolCall
from llama_vision.core.reply import ReplyBuilder


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ('{"a": 1}', {"a": 1}),
        ("", {}),
        (" \n", {}),
        ('{"a": "two\nlines"}', {"a": "two\nlines"}),
    ],
)
def test_arguments_that_can_be_read(written, read):
    assert ToolCall("c", "look", written).parsed() == read


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ('{"a": "lo', "Unterminated string"),
        ("[1]", "arguments of look are not a JSON object"),
        ('{"a": ' * 100_000, "arguments of look are nested too deeply"),
        ("[" * 100_000 + "]" * 100_000, "arguments of look are nested too deeply"),
    ],
    ids=["cut off", "a list", "deep and cut off", "deep"],
)
def test_arguments_that_cannot_be_read_are_an_error_of_one_kind(written, told):
    with pytest.raises(ValueError, match=told):
        ToolCall("c", "look", written).parsed()


def test_arguments_in_many_pieces_are_put_together_in_a_time_that_grows_with_their_number():
    def seconds(count):
        builder = ReplyBuilder()
        begun = time.perf_counter()
        for _ in range(count):
            builder.add(ToolCallDelta(0, "c", "look", "some more of it"))
        assert len(builder.reply().tool_calls[0].arguments) == 15 * count
        return time.perf_counter() - begun

    seconds(4000)
    assert seconds(80_000) < 0.1 + 60 * min(seconds(4000), seconds(4000))
