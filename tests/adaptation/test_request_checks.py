"""What a provider can't do is refused by name before anything is sent."""

import pytest

from llama_vision.core.errors import ConfigurationError, UnsupportedInputError
from llama_vision.core.messages import Image, Message, Text, ToolResult
from llama_vision.core.models import ModelInfo
from llama_vision.core.request import ChatRequest, SamplingParams, Tool, ToolChoice
from llama_vision.providers import PROVIDERS, UNBOUNDED, ImageConstraints, Provider, Range
from tests.adaptation.validation import validate

HOST = Provider(
    "host",
    "My Host",
    None,
    models=(
        ModelInfo(
            "small",
            "host/small",
            max_output_tokens=100,
            tools=False,
        ),
        ModelInfo("big", "host/big"),
    ),
    image_rules=ImageConstraints(
        media_types=frozenset({"image/png", "image/jpeg"}), accepts_urls=False, max_bytes=2_000_000
    ),
    parameters={
        "max_tokens": UNBOUNDED,
        "tools": UNBOUNDED,
        "tool_choice": UNBOUNDED,
        "seed": UNBOUNDED,
        "temperature": Range(0, 2),
        "top_p": Range(0, 1, exclusive_minimum=True),
    },
)
HELLO = (Message("user", (Text("Hello"),)),)
PNG = Image(data=b"x", media_type="image/png")
WEATHER = Tool("weather")


def check(provider=HOST, model="host/big", messages=HELLO, **fields):
    validate(provider, ChatRequest(model, messages, **fields))


def refusal(kind=UnsupportedInputError, **request):
    with pytest.raises(kind) as caught:
        check(**request)
    assert (caught.value.provider, caught.value.model) == ("host", request.get("model", "host/big"))
    return str(caught.value)


def seen(*images):
    return (Message("user", (Text("Look:"), *images)),)


def test_a_plain_request_passes():
    check()


def test_a_request_without_messages_is_refused():
    assert "no messages to send" in refusal(ConfigurationError, messages=())


@pytest.mark.parametrize("model", ["", " "])
def test_a_request_without_a_model_is_refused(model):
    # AIGateway would choose one, and bill it.
    with pytest.raises(ConfigurationError, match="no model to ask"):
        check(model=model)


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0},
        {"temperature": 2},
        {"top_p": 1},
        {"top_p": 1e-9},
        {"seed": -5},
        {"temperature": None, "top_p": None},
    ],
    ids=repr,
)
def test_values_within_the_limits_pass(sampling):
    check(sampling=SamplingParams(**sampling))


@pytest.mark.parametrize(
    ("sampling", "text"),
    [
        ({"temperature": 2.001}, "temperature=2.001 is out of range: My Host takes from 0 to 2."),
        ({"temperature": -1}, "temperature=-1 is out of range"),
        ({"temperature": float("nan")}, "temperature=nan is out of range"),
        ({"top_p": 0}, "top_p=0 is out of range: My Host takes above 0 to 1."),
        ({"top_p": 1.5}, "top_p=1.5 is out of range"),
    ],
    ids=repr,
)
def test_values_beyond_the_limits_are_named(sampling, text):
    assert text in refusal(sampling=SamplingParams(**sampling))


@pytest.mark.parametrize(
    ("model", "max_tokens"), [("host/small", 1), ("small", 100), ("host/big", 10**6), ("other", 10**6)]
)
def test_max_tokens_the_model_allows_pass(model, max_tokens):
    check(model=model, sampling=SamplingParams(max_tokens=max_tokens))


@pytest.mark.parametrize("max_tokens", [0, -1])
def test_max_tokens_that_leave_no_room_are_refused(max_tokens):
    assert f"max_tokens={max_tokens} leaves no room" in refusal(
        sampling=SamplingParams(max_tokens=max_tokens)
    )


@pytest.mark.parametrize("model", ["small", "host/small"])
def test_more_max_tokens_than_the_model_allows_are_refused(model):
    text = refusal(model=model, sampling=SamplingParams(max_tokens=101))
    assert "max_tokens=101 is more than My Host allows (100)" in text


@pytest.mark.parametrize("images", [[PNG], [PNG, Image(data=b"x" * 2_000_000, media_type="image/jpeg")]])
def test_images_the_provider_takes_pass(images):
    check(messages=seen(*images))


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (
            Image(url="https://example.com/a.png"),
            "Image 2 is an address (https://example.com/a.png), which My Host can't fetch. Download it",
        ),
        (
            Image(data=b"x", media_type="image/heic"),
            "Image 2 is image/heic; My Host takes image/jpeg, image/png. Save it as",
        ),
        (Image(data=b"x"), "Image 2 is None; My Host takes"),
        (
            Image(data=b"x" * 2_100_000, media_type="image/png"),
            "Image 2 has 2.1 MB; My Host takes 2 MB. Scale it down",
        ),
    ],
    ids=["address", "media type", "no media type", "size"],
)
@pytest.mark.parametrize(
    "messages",
    [
        lambda image: seen(PNG, image),
        lambda image: (*seen(PNG), Message("tool", (ToolResult("a", (image,)),))),
    ],
    ids=["user", "tool"],
)
def test_an_image_the_provider_does_not_take_is_named_by_number(messages, image, text):
    assert text in refusal(messages=messages(image))


def test_addresses_pass_where_the_provider_fetches_them_and_sizes_where_no_limit_is_known():
    open_host = Provider("host", "Open Host", None, models=())
    big = Image(data=b"x" * 30_000_000, media_type="image/gif")
    check(open_host, messages=seen(Image(url="https://example.com/a.png"), big))


@pytest.mark.parametrize(
    "choice",
    [None, ToolChoice("auto"), ToolChoice("none"), ToolChoice("required"), ToolChoice("named", "weather")],
)
def test_a_choice_among_the_tools_passes(choice):
    check(tools=(WEATHER,), tool_choice=choice)


@pytest.mark.parametrize("choice", [None, ToolChoice("auto"), ToolChoice("none")])
def test_a_choice_of_nothing_needs_no_tools(choice):
    check(tool_choice=choice)


@pytest.mark.parametrize("mode", ["required", "named"])
def test_a_forced_choice_without_tools_is_refused(mode):
    assert f"tool_choice is '{mode}', but no tools are offered" in refusal(
        tool_choice=ToolChoice(mode, "weather")
    )


@pytest.mark.parametrize("name", ["clock", None])
def test_a_choice_that_is_not_offered_is_refused_with_those_that_are(name):
    text = refusal(tools=(WEATHER, Tool("news")), tool_choice=ToolChoice("named", name))
    assert f"tool_choice names {name!r}, but the tools are: weather, news" in text


def test_tools_are_refused_where_the_model_takes_none():
    assert "takes no tools" in refusal(model="small", tools=(WEATHER,))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("deepinfra", {"sampling": SamplingParams(top_p=0)}),
        ("deepinfra", {"sampling": SamplingParams(temperature=2.1)}),
        ("deepinfra", {"sampling": SamplingParams(max_tokens=16_385), "model": "llama-3.2-11b-vision"}),
        ("deepinfra", {"messages": seen(Image(data=b"GIF89a", media_type="image/gif"))}),
        ("deepinfra", {"messages": seen(Image(data=b"x" * 20_000_001, media_type="image/png"))}),
        ("local", {"messages": seen(Image(url="https://example.com/a.png"))}),
        ("local", {"sampling": SamplingParams(top_k=0)}),
    ],
)  # fmt: skip
def test_documented_limits_of_the_real_providers(name, fields):
    with pytest.raises(UnsupportedInputError, match=rf"\[{name}, "):
        check(PROVIDERS[name], **fields)
