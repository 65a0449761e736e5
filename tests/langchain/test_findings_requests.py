"""What goes wrong elsewhere in requests, caches and errors of LangChain's, in every form of content."""

import asyncio
import base64

import pytest
from langchain_core import exceptions as theirs
from langchain_core.caches import InMemoryCache
from langchain_core.messages import HumanMessage, SystemMessage

from llama_vision.core import errors as ours
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.langchain import ChatLlamaVision
from tests.emulator import HANG_UP, NO_ANSWER, Answer, completion
from tests.langchain.output_styles import every_streamed_style, every_style, form_of, message
from tests.langchain.weather import Weather, model_at

pytestmark = pytest.mark.filterwarnings("ignore:.*beta")  # LangChain says so of its own third version

# The fifth: with one asynchronous client for all, the second event loop found it closed. See test_runs_anywhere.py, too.


@every_style
def test_every_event_loop_can_be_the_second(emulator, style):
    model = model_at(emulator, max_retries=0, **form_of(style))
    answers = [message(model, style).text for _ in range(3)]
    assert answers == ["Hello! How can I help you today?"] * 3
    assert len(emulator.requests) == 3


# The eighth: an agent without tools binds an empty list of them, which was sent, and which many servers refuse.


@every_style
def test_no_tools_are_not_sent_as_an_empty_list(emulator, style):
    model = model_at(emulator, **form_of(style))
    wanted = {
        "type": "json_schema",
        "json_schema": {"name": "Weather", "schema": Weather.model_json_schema()},
    }
    answer = message(
        model.bind_tools([], response_format=wanted), style, "The weather in Paris for 3 days, as JSON?"
    )
    assert Weather.model_validate_json(answer.text).days == 3
    body = emulator.requests[0].body
    assert body["response_format"] == wanted
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & body.keys()


# The tenth: two models that answer differently shared what was cached.

DIFFERENCES = {
    "temperature": 0.9,
    "top_p": 0.9,
    "top_k": 3,
    "min_p": 0.1,
    "seed": 4,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "repetition_penalty": 1.2,
    "max_tokens": 5,
    "stop": ["END"],
    "model": "llama-3.2-90b-vision",
    "extra_body": {"user": "u-1"},
    "image_max_pixels": 100,
    "text_tool_calls": False,
}


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("name", DIFFERENCES)
def test_models_that_may_answer_differently_share_no_answers(emulator, name, version):
    emulator.script(completion("One"), completion("Two"))
    cache = InMemoryCache()
    one = model_at(emulator, cache=cache, output_version=version)
    other = model_at(emulator, cache=cache, output_version=version, **{name: DIFFERENCES[name]})
    assert [one.invoke("Hi").text, other.invoke("Hi").text] == ["One", "Two"]
    assert [one.invoke("Hi").text, other.invoke("Hi").text] == ["One", "Two"]
    assert len(emulator.requests) == 2


def test_models_at_two_addresses_share_no_answers(emulator, other_emulator):
    cache = InMemoryCache()
    for server in (emulator, other_emulator):
        server.script(completion(server.base_url))
        assert model_at(server, cache=cache).invoke("Hi").text == server.base_url


# The eleventh: errors that LangChain's middleware does not know.

TROUBLES = {
    "refused": (lambda emulator: emulator.refusal(429), theirs.ModelRateLimitError, ours.RateLimitError),
    "a wrong key": (
        lambda emulator: emulator.refusal(401),
        theirs.ModelAuthenticationError,
        ours.AuthenticationError,
    ),
    "no answer": (lambda _: NO_ANSWER, theirs.ModelConnectionError, ours.ConnectionFailedError),
}


@every_style
@pytest.mark.parametrize("trouble", TROUBLES)
def test_an_error_is_langchains_and_ours(emulator, style, trouble):
    plan, known, own = TROUBLES[trouble]
    emulator.script(plan(emulator))
    with pytest.raises(known) as caught:
        message(model_at(emulator, max_retries=0, **form_of(style)), style)
    assert isinstance(caught.value, own)
    assert caught.value.is_retryable == caught.value.retryable


@every_streamed_style
def test_a_stream_that_is_cut_is_langchains_error_and_ours(emulator, style):
    half = b'data: {"choices": [{"index": 0, "delta": {"content": "Half"}, "finish_reason": null}]}\n\n'
    emulator.script(Answer((half, HANG_UP), headers={"content-type": "text/event-stream"}))
    with pytest.raises(theirs.ModelConnectionError) as caught:
        message(model_at(emulator, max_retries=0, **form_of(style)), style)
    assert isinstance(caught.value, ours.TruncatedStreamError)
    assert caught.value.partial.text == "Half"


# The fifteenth: retrieval puts a system message beside images, and several images into one request.


def retrieved(*names):
    """What a retrieval over images asks."""
    images = [
        {
            "type": "image",
            "base64": base64.b64encode(SAMPLE_IMAGES[name].read_bytes()).decode(),
            "mime_type": "image/png",
        }
        for name in names
    ]
    question = {"type": "text", "text": "What is shown?"}
    return [
        SystemMessage("Answer from the pictures alone."),
        HumanMessage([{"type": "text", "text": "Context:"}, *images, question]),
    ]


@every_style
@pytest.mark.parametrize("provider", ["deepinfra", "aimlapi", "aigateway", "cloudflare"])
def test_a_system_message_beside_a_image(emulator_of, provider, style):
    emulator = emulator_of(provider)
    answer = message(model_at(emulator, provider, **form_of(style)), style, retrieved("circle"))
    assert answer.text == "I see 1 image(s)."
    (request,) = emulator.requests
    assert len(request.images) == 1
    assert "Answer from the pictures alone." in request.content.decode()


@every_style
def test_a_system_message_beside_a_image_that_this_machine_looks_at(style):
    question = retrieved("circle")
    question[1].content[-1]["text"] = "What colour is the circle?"
    answer = message(ChatLlamaVision(**form_of(style)), style, question)
    assert answer.text == "blue"


@every_style
def test_images_that_a_provider_has_no_room_for(emulator_of, style):
    emulator = emulator_of("cloudflare")
    question = retrieved("circle", "shapes")
    with pytest.raises(theirs.ModelInvalidRequestError, match=r"There are 2 images.*takes 1"):
        message(model_at(emulator, "cloudflare", **form_of(style)), style, question)
    assert emulator.requests == []
    for policy in ("first", "grid"):
        model = model_at(emulator, "cloudflare", image_policy=policy, **form_of(style))
        assert message(model, style, question).text == "I see 1 image(s)."


def test_a_model_that_nobody_closes_leaves_no_loop_behind(emulator):
    model = model_at(emulator, max_retries=0)
    loops = [asyncio.new_event_loop() for _ in range(3)]
    answers = [loop.run_until_complete(model.ainvoke("Hi")).text for loop in loops]  # all open at a time
    assert answers == ["Hello! How can I help you today?"] * 3
    answers = [loop.run_until_complete(model.ainvoke("Hi")).text for loop in loops]
    assert answers == ["Hello! How can I help you today?"] * 3
    assert emulator.connections == 3
    for loop in loops:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
