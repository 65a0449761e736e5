"""Limits of an image's base64 text and of its sides: who is over is told which image, which limit, and what to do."""

import base64

import pytest

from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.messages import Message, Text, ToolResult
from llama_vision.core.request import ChatRequest
from llama_vision.providers import ImageConstraints, Provider
from tests.adaptation.sample_images import ADDRESS, of_bytes, of_pixels
from tests.adaptation.validation import validate


def check(rules, *images):
    host = Provider("host", "My Host", None, models=(), image_rules=rules)
    first, *others = images
    messages = (
        Message("user", (Text("Look:"), first)),
        Message("tool", (ToolResult("a", tuple(others)),)),
    )
    validate(host, ChatRequest("host/big", messages))


def refusal(rules, *images):
    with pytest.raises(UnsupportedInputError) as caught:
        check(rules, *images)
    assert (caught.value.provider, caught.value.model) == ("host", "host/big")
    return str(caught.value)


@pytest.mark.parametrize("count", [*range(20), 134_997])
def test_a_image_passes_whose_base64_is_shorter(count):
    length = len(base64.b64encode(b"x" * count))
    check(ImageConstraints(max_base64_chars=length + 1), of_bytes(count))
    if count:
        assert "Image 1 has" in refusal(ImageConstraints(max_base64_chars=length), of_bytes(count))


def test_a_image_whose_base64_is_too_long_is_named_with_what_to_do():
    rules = ImageConstraints(max_base64_chars=180_000)
    check(rules, of_bytes(134_997), of_bytes(134_997), ADDRESS)
    assert (
        "Image 2 has 180000 characters in base64; My Host takes fewer than 180000, which is a file of 135 kB. "
        "Save it as JPEG, or scale it down: the model sees at most 1120 x 1120 pixels."
    ) in refusal(rules, of_bytes(1), of_bytes(134_998))


def test_images_whose_base64_is_too_long_together_are_refused_with_the_largest():
    rules = ImageConstraints(max_total_base64_chars=10_000_000)
    check(rules, of_bytes(5_000_000), of_bytes(2_499_000), ADDRESS)
    assert (
        "The images have 10.7 MB in base64 together, of which image 2 has 6.7 MB; My Host takes less than 10 MB in one "
        "request. Scale them down, as the model sees at most 1120 x 1120 pixels of each, or ask about fewer at once."
    ) in refusal(rules, of_bytes(3_000_000), of_bytes(5_000_000), ADDRESS)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_the_longest_side_counts_whichever_it_is(kind):
    rules = ImageConstraints(max_side=2048)
    check(rules, of_pixels(2048, 2048, kind), of_pixels(1, 2048, kind))
    for size in ((2049, 1), (1, 2049)):
        assert (
            f"Image 2 is {size[0]} x {size[1]} pixels; My Host takes none with a side of more than 2048. Scale it down: "
        ) in refusal(rules, of_pixels(9, 9, kind), of_pixels(*size, kind))


def test_the_shortest_side_counts_whichever_it_is():
    rules = ImageConstraints(min_side=10)
    check(rules, of_pixels(10, 10), of_pixels(10, 99))
    for size in ((9, 99), (99, 9)):
        assert (
            f"Image 1 is {size[0]} x {size[1]} pixels; My Host takes none with a side of fewer than 10. Scale it up."
        ) in refusal(rules, of_pixels(*size))


def test_a_image_whose_size_is_not_told_is_left_to_the_provider():
    check(ImageConstraints(min_side=10, max_side=20), of_bytes(100))


def test_images_pass_where_no_limit_is_known():
    check(ImageConstraints(), of_pixels(1, 3000), of_bytes(30_000_000), ADDRESS)
