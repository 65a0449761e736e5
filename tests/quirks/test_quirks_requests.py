"""What is sent, and what is refused by name before anything is."""

import base64
import io
from dataclasses import replace

import PIL.Image
import pytest

from llama_vision import PROVIDERS, Image, Message, ResponseFormat, SamplingParams, Text, Tool
from llama_vision.core.errors import (
    ImageError,
    UnsupportedInputError,
)
from llama_vision.images.fetch_policy import FetchPolicy
from llama_vision.images.settings import ImageSettings
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision
from llama_vision.providers import find_provider
from llama_vision.providers.provider import ImageConstraints
from tests.emulator.asking import MODEL, backend_for
from tests.images.image_server import ImageServer
from tests.quirks.talk import PNG, ask, image, request

EMULATED = ("deepinfra", "aimlapi", "aigateway", "cloudflare", "cloudflare-openai")
TOOL = Tool("f", "Do it.", {"type": "object", "properties": {"city": {"type": "string"}}})
URL = Image(url="https://example.com/cat.png")


def sampled(name, value):
    """Make what asks for a value: of `stop`, how many."""
    if name == "stop":
        return {"stop": tuple(f"stop {number}" for number in range(value))}
    return {"sampling": SamplingParams(**{name: value})}


def refused(emulator, provider, *said, **more) -> str:
    """Ask for what is refused on this side."""
    with pytest.raises(UnsupportedInputError) as caught:
        ask(emulator, provider, "complete", *said, **more)
    assert emulator.requests == []
    return str(caught.value)


@pytest.mark.parametrize("provider", EMULATED)
def test_quirk_42_no_providers_own_limit_cuts_a_reply_in_silence(emulator_of, way, provider):
    emulator = emulator_of(provider)
    reply = ask(emulator, provider, way, "Count to 600")  # the least limit is 256, the next 512
    assert (reply.text.split()[-1], reply.finish_reason) == ("600", "stop")
    assert emulator.requests[0].body["max_tokens"] == 1024


@pytest.mark.parametrize(("provider", "most"), [("deepinfra", 16_384), ("aigateway", 4096)])
def test_quirk_42_more_than_a_provider_gives_is_refused(emulator_of, provider, most):
    emulator = emulator_of(provider)
    assert f"({most})" in refused(emulator, provider, **sampled("max_tokens", most + 1))
    assert ask(emulator, provider, "complete", **sampled("max_tokens", most)).text


RANGES = [  # provider, parameter, the least and the most that are taken, and the nearest that are not
    ("aimlapi", "seed", 1, 2**53, 0, None),
    ("cloudflare", "seed", 1, 9_999_999_999, 0, 10_000_000_000),
    ("aimlapi", "top_p", 0.01, 1, 0.009, 1.01),
    ("deepinfra", "top_p", 0.001, 1, 0, 1.01),
    ("cloudflare", "top_p", 0, 2, -0.1, 2.1),
    ("aimlapi", "min_p", 0.001, 0.999, 0, 1),
    ("deepinfra", "min_p", 0, 1, -0.1, 1.1),
    ("cloudflare", "temperature", 0, 5, -0.1, 5.1),
    ("deepinfra", "temperature", 0, 2, -0.1, 2.1),
    ("aimlapi", "temperature", 0, 2, -0.1, 2.1),
    ("cloudflare", "top_k", 1, 50, 0, 51),
    ("deepinfra", "top_k", 0, 999, -1, 1000),
    ("cloudflare", "frequency_penalty", 0, 2, -0.1, 2.1),
    ("cloudflare", "presence_penalty", 0, 2, -0.1, 2.1),
    ("deepinfra", "frequency_penalty", -2, 2, -2.1, 2.1),
    ("aimlapi", "presence_penalty", -2, 2, -2.1, 2.1),
    ("deepinfra", "repetition_penalty", 0.01, 5, 0, 5.1),
    ("cloudflare", "repetition_penalty", 0, 2, -0.1, 2.1),
    ("aimlapi", "stop", 1, 4, None, 5),
    ("deepinfra", "stop", 1, 16, None, 17),
]


@pytest.mark.parametrize(("provider", "name", "least", "most", "below", "above"), RANGES)
def test_quirk_43_each_provider_has_ranges_of_its_own(emulator_of, provider, name, least, most, below, above):
    emulator = emulator_of(provider)
    for wrong in (below, above):
        if wrong is not None:
            words = refused(emulator, provider, **sampled(name, wrong))
            assert "out of range" in words
            assert name in words
    for right in (least, most):
        assert ask(emulator, provider, "complete", **sampled(name, right)).text
    sent = [received.body[name] for received in emulator.requests]
    assert [len(value) if name == "stop" else value for value in sent] == [
        least,
        most,
    ]  # and nothing is clamped


def test_quirk_43_no_range_of_a_record_is_left_untested():
    limited = {
        (provider, name)
        for provider in ("deepinfra", "aimlapi", "cloudflare")
        for name, limits in PROVIDERS[provider].parameters.items()
        if limits != PROVIDERS[provider].parameters["max_tokens"]
    }
    same_everywhere = {("deepinfra", "presence_penalty"), ("aimlapi", "frequency_penalty")}
    assert limited - {row[:2] for row in RANGES} == same_everywhere


@pytest.mark.parametrize("number", [2, 4])
def test_quirk_43_several_answers_are_never_asked_for(emulator_of, number):
    assert "n > 1" in refused(emulator_of("deepinfra"), "deepinfra", extra_body={"n": number})


def test_quirk_43_stops_work_where_there_are_none(emulator_of, way):
    for provider in ("cloudflare", "aigateway"):
        emulator = emulator_of(provider)
        reply = ask(emulator, provider, way, stop=("help",))
        assert (reply.text, reply.finish_reason) == ("Hello! How can I ", "stop")
        assert "stop" not in emulator.requests[0].body


def test_quirk_44_json_is_refused_where_the_model_has_none(emulator_of):
    emulator = emulator_of("aimlapi")
    wanted = ResponseFormat("json_object")
    large = PROVIDERS["aimlapi"].models[1].id
    assert "response_format" in refused(emulator, "aimlapi", response_format=wanted)
    ask(emulator, "aimlapi", "complete", 'Give "name".', response_format=wanted, model=large)
    sent = emulator.requests[0].body
    assert sent["response_format"] == {"type": "json_object"}
    assert "max_completion_tokens" not in sent  # which only this model has; both have the other
    for kind in ("json_object", "json_schema"):
        assert "response_format" in refused(
            emulator_of("cloudflare"), "cloudflare", response_format=ResponseFormat(kind, schema={})
        )


def test_quirk_44_what_one_provider_alone_has_goes_through_extra_body(emulator_of, way):
    emulator = emulator_of("deepinfra")
    pattern = {"response_format": {"type": "regex", "regex": "[a-z]+"}}
    ask(emulator, "deepinfra", way, extra_body=pattern)
    assert emulator.requests[0].body["response_format"] == pattern["response_format"]


@pytest.mark.parametrize("provider", ["deepinfra", "aimlapi", "aigateway"])
def test_quirk_45_chat_completions_take_addresses_and_data_urls_as_objects(emulator_of, way, provider):
    for given in (URL, PNG):
        emulator = emulator_of(provider)
        ask(emulator, provider, way, given, "What is it?")
        block = emulator.requests[-1].body["messages"][0]["content"][0]
        assert isinstance(block["image_url"], dict)
    assert [received.image_urls[0][:14] for received in emulator.requests] == [
        "https://exampl",
        "data:image/png",
    ]


def test_quirk_45_cloudflare_takes_the_bytes_beside_the_messages(emulator_of, way):
    emulator = emulator_of("cloudflare")
    assert ask(emulator, "cloudflare", way, PNG, "What is it?").text == "I see 1 image(s)."
    assert emulator.requests[0].body["image"] == list(PNG.data)


@pytest.mark.parametrize("provider", ["cloudflare", "ollama", "lmstudio", "sambanova", "hyperbolic"])
def test_quirk_45_what_is_at_an_address_is_sent_where_nobody_fetches_it(emulator_of, way, provider):
    native = provider == "cloudflare"
    emulator = emulator_of("cloudflare" if native else "openai-compatible")
    model = {} if native else {"model": MODEL}
    with ImageServer() as server:
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(PNG.data)}\r\n\r\n".encode()
        server.answers["/cat.png"] = [head + PNG.data]
        at_home = Image(url=server.url("/cat.png"))
        with pytest.raises(ImageError):  # nobody's address leads into one's own network without leave
            ask(emulator, provider, way, at_home, "What is it?", **model)
        assert emulator.requests == []
        leave = {"images": ImageSettings(fetch=FetchPolicy(private_networks=True))}
        ask(emulator, provider, way, at_home, "What is it?", options=leave, **model)
    assert emulator.requests[0].images == [PNG.data]


def test_quirk_46_the_bytes_say_what_a_image_is_and_not_its_name(emulator_of, tmp_path):
    emulator = emulator_of("deepinfra")  # which opens it, and refuses a wrong type
    path = tmp_path / "cat.png"
    path.write_bytes(image("JPEG").data)
    names = {"provider": "deepinfra", "api_key": emulator.api_key}
    LlamaVision(**names, api_base=emulator.base_url).complete("What is it?", image_documents=[path])
    url = f"data:image/gif;base64,{base64.b64encode(PNG.data).decode()}"
    block = {"type": "image_url", "image_url": {"url": url}}
    ChatLlamaVision(**names, base_url=emulator.base_url).invoke([("user", [block])])
    assert [received.image_urls[0][:15] for received in emulator.requests] == [
        "data:image/jpeg",
        "data:image/png;",
    ]


@pytest.mark.parametrize(
    "content", [b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\0\0\0\x18ftypheic\0\0\0\0"]
)
def test_quirk_46_drawings_and_heic_are_refused(emulator_of, content):
    emulator = emulator_of("aimlapi")
    model = LlamaVision(provider="aimlapi", api_base=emulator.base_url, api_key=emulator.api_key)
    with pytest.raises((ImageError, UnsupportedInputError)):
        model.complete("What is it?", image_documents=[content])
    assert emulator.requests == []


@pytest.mark.parametrize(
    "image",
    [image("GIF"), Image(PNG.data + bytes(20_000_001 - len(PNG.data)), "image/png")],
    ids=["type", "bytes"],
)
def test_quirk_46_a_image_that_a_provider_does_not_take_is_made_into_one_that_it_does(
    emulator_of, way, image
):
    emulator = emulator_of("deepinfra")  # jpg, png, webp; 20 MB
    assert ask(emulator, "deepinfra", way, image, "What is it?").text == "I see 1 image(s)."
    (sent,) = emulator.requests[0].images
    assert len(sent) <= 20_000_000
    with PIL.Image.open(io.BytesIO(sent)) as opened:
        assert (opened.format, opened.size) in [("PNG", (30, 20)), ("JPEG", (30, 20))]


def test_quirk_46_cloudflare_takes_no_image_of_fewer_than_ten_pixels(emulator_of):
    small = image(size=(9, 30))
    assert "fewer than 10" in refused(emulator_of("cloudflare"), "cloudflare", small, "What is it?")


def talk_of_system(provider):
    return request(provider, Message("system", (Text("Be kind."),)), PNG, "What is it?")


def test_quirk_47_the_systems_words_go_into_the_users_where_a_image_forbids_them(emulator_of, way):
    emulator = emulator_of("openai-compatible")
    ask(emulator, "vllm", way, *talk_of_system("vllm").messages)
    (only,) = emulator.requests[0].body["messages"]
    assert [block.get("text") for block in only["content"]] == [None, "Be kind.\n\nWhat is it?"]


def test_quirk_47_a_record_of_ones_own_says_so_for_any_server(emulator_of):
    emulator = emulator_of("openai-compatible")
    strict = replace(
        find_provider("openai-compatible"), image_rules=ImageConstraints(allows_system_message=False)
    )
    for provider, roles in ((strict, ["user"]), ("openai-compatible", ["system", "user"])):
        backend_for(emulator, provider).complete(talk_of_system("openai-compatible"))
        assert [message["role"] for message in emulator.requests[-1].body["messages"]] == roles


def test_quirk_48_a_image_goes_before_the_words_that_ask_about_it(emulator_of, way):
    emulator = emulator_of("deepinfra")
    ask(emulator, "deepinfra", way, "What is it?", PNG)
    kinds = [block["type"] for block in emulator.requests[0].body["messages"][0]["content"]]
    assert kinds == ["image_url", "text"]


@pytest.mark.parametrize("provider", ["cloudflare", "nvidia", "ollama", "groq", "hyperbolic"])
def test_quirk_48_a_second_image_is_refused_and_not_dropped(emulator_of, provider):
    emulator = emulator_of("cloudflare" if provider == "cloudflare" else "openai-compatible")
    assert "There are 2 images" in refused(emulator, provider, PNG, PNG, "Compare.")
