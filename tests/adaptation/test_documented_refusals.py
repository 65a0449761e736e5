"""Each record refuses what its provider documents as refused, and puts up with what it does not."""

import pytest

from llama_vision.adaptation.message_order import reorder_messages
from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.messages import Image, Message, Text
from llama_vision.core.request import ChatRequest, ResponseFormat, SamplingParams, Tool, ToolChoice
from llama_vision.providers import PROVIDERS
from llama_vision.providers.hosted import HOSTED
from llama_vision.providers.servers import SERVERS
from tests.adaptation.sample_images import ADDRESS, of_bytes, of_pixels
from tests.adaptation.validation import validate

GIF = Image(data=b"GIF89a", media_type="image/gif")
WEBP = Image(data=b"RIFF", media_type="image/webp")
PNG = of_pixels(100, 100)
TOOLS = (Tool("weather"),)

REFUSED = [
    ("local", {}, [ADDRESS], "can't fetch"),
    ("deepinfra", {}, [GIF], "takes image/jpeg, image/png, image/webp"),
    ("aimlapi", {"sampling": SamplingParams(top_p=0)}, [], "from 0.01 to 1"),
    ("aimlapi", {"tools": TOOLS, "text_tool_calls": False}, [], "takes no tools"),
    ("aigateway", {"sampling": SamplingParams(top_k=5)}, [], "has no top_k"),
    ("cloudflare", {}, [of_pixels(9, 100)], "fewer than 10"),
    ("cloudflare", {}, [PNG, PNG], "takes 1 in one request"),
    ("cloudflare-openai", {}, [PNG], "takes no images"),
    ("groq", {}, [PNG, PNG], "takes 1 in one request"),
    ("groq", {}, [of_bytes(3_000_000)], "less than 4 MB in one request"),
    ("openrouter", {"sampling": SamplingParams(temperature=2.1)}, [], "from 0 to 2"),
    ("openrouter", {"sampling": SamplingParams(repetition_penalty=3)}, [], "from 0 to 2"),
    ("fireworks", {}, [PNG] * 31, "takes 30 in one request"),
    ("fireworks", {}, [of_bytes(4_000_000)] * 2, "less than 10 MB in one request"),
    ("fireworks", {}, [WEBP], "is image/webp"),
    ("nvidia", {}, [of_bytes(135_000)], "fewer than 180000"),
    ("nvidia", {}, [PNG, PNG], "takes 1 in one request"),
    ("nvidia", {}, [WEBP], "takes image/jpeg, image/png"),
    ("nvidia", {"tools": TOOLS, "text_tool_calls": False}, [], "takes no tools"),
    (
        "io-net",
        {"sampling": SamplingParams(max_tokens=4097)},
        [],
        "more than io.net Intelligence allows (4096)",
    ),
    ("sambanova", {}, [ADDRESS], "can't fetch"),
    ("hyperbolic", {}, [of_pixels(2049, 1)], "more than 2048"),
    ("hyperbolic", {}, [ADDRESS], "can't fetch"),
    ("hyperbolic", {}, [PNG, PNG], "takes 1 in one request"),
    ("ollama", {}, [ADDRESS], "can't fetch"),
    ("ollama", {}, [PNG, PNG], "takes 1 in one message"),
    ("ollama", {"tools": TOOLS, "text_tool_calls": False}, [], "takes no tools"),
    ("ollama", {"sampling": SamplingParams(top_k=5)}, [], "has no top_k"),
    ("llama-vision", {"sampling": SamplingParams(frequency_penalty=1)}, [], "has no frequency_penalty"),
    ("lmstudio", {}, [WEBP], "takes image/jpeg, image/png"),
    ("lmstudio", {}, [ADDRESS], "can't fetch"),
    ("lmstudio", {"response_format": ResponseFormat("json_object")}, [], "'json_object'"),
    ("lmstudio", {"sampling": SamplingParams(repetition_penalty=1.1)}, [], "has no repetition_penalty"),
]
NOTHING_DOCUMENTED = {
    *("together", "huggingface", "vllm", "sglang", "openai-compatible"),
    *("azure", "github-models", "vercel", "inference-net"),
}


def request_to(name, images=(), **fields):
    parts = (*images, Text("What is it?"))
    return ChatRequest(PROVIDERS[name].models[0].id, (Message("user", parts),), **fields)


@pytest.mark.parametrize(("name", "fields", "images", "text"), REFUSED)
def test_what_a_provider_documents_as_refused_is_refused_here(name, fields, images, text):
    with pytest.raises(UnsupportedInputError, match=rf"\[{name}, ") as caught:
        validate(PROVIDERS[name], request_to(name, images, **fields))
    assert text in str(caught.value)


def test_every_record_has_its_refusals_here():
    assert {name for name, *_ in REFUSED} | NOTHING_DOCUMENTED == set(PROVIDERS)
    assert not NOTHING_DOCUMENTED & {name for name, *_ in REFUSED}


@pytest.mark.parametrize("name", [name for name in PROVIDERS if name != "cloudflare-openai"])
def test_one_ordinary_image_passes_everywhere(name):
    validate(PROVIDERS[name], request_to(name, [PNG]))


@pytest.mark.parametrize("name", sorted(NOTHING_DOCUMENTED))
def test_where_nothing_is_documented_everything_is_sent(name):
    sampling = SamplingParams(
        temperature=5, top_p=0, top_k=0, min_p=0, seed=0, frequency_penalty=9, presence_penalty=9, repetition_penalty=9
    )  # fmt: skip
    validate(
        PROVIDERS[name],
        request_to(
            name,
            [PNG, ADDRESS, GIF, WEBP, of_bytes(30_000_000)],
            sampling=sampling,
            stop=("a",) * 20,
            tools=TOOLS,
            tool_choice=ToolChoice("required"),
            parallel_tool_calls=True,
            response_format=ResponseFormat("json_schema", schema={}),
        ),
    )


@pytest.mark.parametrize("name", ["groq", "nvidia", "vllm"])
def test_the_systems_words_move_where_they_may_not_stand_beside_a_image(name):
    request = request_to(name, [PNG])
    said = reorder_messages(
        PROVIDERS[name],
        ChatRequest(request.model, (Message("system", (Text("Be brief."),)), *request.messages)),
    )
    assert said.messages == (Message("user", (PNG, Text("Be brief.\n\nWhat is it?"))),)


def test_no_two_records_have_the_same_name():
    names = [record.name for record in (*HOSTED, *SERVERS)]
    assert len(set(names)) == len(names) == 23
    assert all(PROVIDERS[record.name] is record for record in (*HOSTED, *SERVERS))


@pytest.mark.parametrize("record", HOSTED, ids=lambda record: record.name)
def test_a_host_wants_a_key_and_is_reached_over_https(record):
    assert record.key_required
    assert record.key_env
    assert (record.base_url or record.base_url_example).startswith("https://")
    assert record.dialect is not None


@pytest.mark.parametrize("record", SERVERS, ids=lambda record: record.name)
def test_a_server_of_ones_own_needs_no_key_and_is_looked_for_on_this_machine(record):
    assert not record.key_required
    assert all(name.startswith("LLAMA_VISION_") for name in record.key_env)
    assert record.base_url.startswith("http://localhost:")
    assert record.dialect is not None


@pytest.mark.parametrize(
    "record",
    [each for each in (*HOSTED, *SERVERS) if each.name != "llama-vision"],
    ids=lambda record: record.name,
)
def test_the_smaller_model_is_the_default_and_ids_differ(record):
    assert record.models[0].name == f"llama-3.2-{90 if record.name == 'io-net' else 11}b-vision"
    ids = [model.id for model in record.models]
    assert len(set(ids)) == len(ids)
