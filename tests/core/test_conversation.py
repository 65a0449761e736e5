"""Messages and their parts."""

import dataclasses

import pytest

from llama_vision.core.messages import Image, Message, Text, ToolCall, ToolResult, single_turn_messages
from llama_vision.core.request import ChatRequest, Tool, ToolChoice

SECRET = b"\x89PNG private pixels"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"city": "Paris", "days": 2}', {"city": "Paris", "days": 2}),
        ('{"city": "Zürich 🏔"}', {"city": "Zürich 🏔"}),
        ("{}", {}),
        ("", {}),
        (" \n", {}),
    ],
)
def test_arguments_are_read_as_a_json_object(arguments, expected):
    assert ToolCall("id", "weather", arguments).parsed() == expected


@pytest.mark.parametrize("arguments", ['{"city": "Par', "{'city': 'Paris'}", "Paris"])
def test_arguments_that_are_no_json_raise(arguments):
    with pytest.raises(ValueError):
        ToolCall("id", "weather", arguments).parsed()


@pytest.mark.parametrize("arguments", ["[1]", '"text"', "1", "null", '"{\\"city\\": 1}"'])
def test_arguments_that_are_no_object_raise_and_name_the_tool(arguments):
    with pytest.raises(ValueError, match="The arguments of weather are not a JSON object"):
        ToolCall("id", "weather", arguments).parsed()


@pytest.mark.parametrize(
    "fields", [{}, {"data": b"x", "url": "https://example.com/a.png"}, {"media_type": "image/png"}]
)
def test_an_image_has_either_data_or_a_url(fields):
    with pytest.raises(ValueError, match="either data or a url"):
        Image(**fields)


@pytest.mark.parametrize("fields", [{"data": b""}, {"data": b"x"}, {"url": "https://example.com/a.png"}])
def test_an_image_with_one_of_them_is_fine(fields):
    image = Image(**fields)
    assert (image.data, image.url) == (fields.get("data"), fields.get("url"))


@pytest.mark.parametrize(
    "holder",
    [
        lambda image: image,
        lambda image: ToolResult("call", (image,)),
        lambda image: Message("user", (image,)),
        lambda image: ChatRequest("m", (Message("user", (image,)),)),
    ],
    ids=["image", "result", "message", "request"],
)
def test_no_repr_shows_an_images_bytes(holder):
    shown = repr(holder(Image(data=SECRET, media_type="image/png")))
    assert "private" not in shown
    assert "image/png" in shown


def test_a_repr_tells_an_images_size():
    assert (
        repr(Image(data=bytes(1234), media_type="image/png"))
        == "Image(<1,234 bytes>, media_type='image/png')"
    )
    assert repr(Image(url="https://a/b.png", detail="low")) == "Image(url='https://a/b.png', detail='low')"


@pytest.mark.parametrize(
    ("media_type", "shown"),
    [("image/png", (b"x", None)), ("image/jpeg", (None, b"x")), ("image/webp", (None, None))],
)
def test_a_notebook_displays_an_image(media_type, shown):
    image = Image(data=b"x", media_type=media_type)
    assert (image._repr_png_(), image._repr_jpeg_()) == shown


@pytest.mark.parametrize(
    "value",
    [Text("a"), Image(data=b"a"), ToolCall("i", "n", ""), ToolResult("i", ()), Message("user", ())],
    ids=lambda value: type(value).__name__,
)
def test_parts_can_not_be_changed(value):
    field = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, field, "other")


def test_a_messages_text_is_all_its_words_and_nothing_else():
    parts = (Text("What "), Image(data=b"x"), Text("is this?"), ToolCall("i", "n", "args"))
    assert Message("user", parts).text == "What is this?"
    assert Message("user", ()).text == ""


def test_a_request_knows_its_images_in_order_those_in_tool_results_included():
    images = [Image(data=bytes([number])) for number in range(4)]
    messages = (
        Message("user", (Text("look"), images[0])),
        Message("assistant", (ToolCall("i", "zoom", "{}"),)),
        Message("tool", (ToolResult("i", (Text("closer"), images[1], images[2])), ToolResult("j", ()))),
        Message("user", (images[3],)),
    )
    assert ChatRequest("m", messages).images() == images


def test_requests_do_not_share_their_defaults():
    first, second = ChatRequest("m", ()), ChatRequest("m", ())
    assert first == second
    assert first.extra_body is not second.extra_body


def test_a_single_turn_has_its_images_before_its_text_and_a_system_message_where_there_is_one():
    image = Image(url="https://example.com/a.png")
    user = Message("user", (image, Text("What?")))
    assert single_turn_messages("What?", [image]) == single_turn_messages("What?", [image], "") == (user,)
    assert single_turn_messages("What?", [image], "Be brief.") == (
        Message("system", (Text("Be brief."),)),
        user,
    )


def test_the_text_of_a_tool_result_is_that_of_its_text_parts():
    image = Image(url="https://example.com/a.png")
    assert ToolResult("a", (Text("one"), image, Text("two"))).text == "one\ntwo"
    assert ToolResult("a", (image,)).text == ""


@pytest.mark.parametrize(
    ("fields", "looked_for"),
    [
        ({}, True),
        ({"tool_choice": ToolChoice("auto")}, True),
        ({"tool_choice": ToolChoice("none")}, False),
        ({"text_tool_calls": False}, False),
    ],
)
def test_calls_are_looked_for_in_the_text_unless_they_are_forbidden(fields, looked_for):
    request = ChatRequest("m", (), tools=(Tool("f"),), **fields)
    assert request.text_parsed_tools == ((Tool("f"),) if looked_for else ())
