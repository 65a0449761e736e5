"""Every provider, through both adapters, in every style: the same abilities, but for what its record says can't be."""

import io
from dataclasses import replace

import PIL.Image
import pytest

from llama_vision import Image, Message, Text, ToolCall, ToolResult
from llama_vision.core.errors import (
    AuthenticationError,
    RateLimitError,
    TruncatedStreamError,
    UnsupportedInputError,
)
from llama_vision.demo import SAMPLE_IMAGES
from tests.contract.abilities import reason_against
from tests.emulator import HANG_UP, completion
from tests.emulator.chat_model import GREETING

IMAGE = Image(SAMPLE_IMAGES["circle"].read_bytes(), "image/png")
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ASKED = Message("user", (Text("What is the weather in Paris?"),))
CALLED = Message("assistant", (ToolCall("call_1", "get_weather", '{"city": "Paris"}'),))
CALL = '{"name": "get_weather", "parameters": {"city": "Paris"}}'
CALLS = [("get_weather", {"city": "Paris"})]
TOLD = Message("tool", (ToolResult("call_1", (Text("It is sunny."),)),))


def test_text(subject):
    answer = subject.ask("Hello!")
    assert (answer.text, answer.calls, answer.end) == (GREETING, [], "stop")
    assert answer.model == subject.record.models[0].id
    assert len(subject.emulator.requests) == 1
    assert subject.emulator.requests[0].streamed == subject.streamed


def test_system(subject):
    subject.ask(Message("system", (Text("Be kind."),)), "Hello!")
    first, second = subject.emulator.requests[0].body["messages"]
    assert (first["role"], first["content"]) == ("system", "Be kind.")
    assert second["role"] == "user"


def test_image(subject):
    subject.need("image")
    answer = subject.ask(Message("user", (Text("What is it?"), IMAGE)))
    assert answer.text == "I see 1 image(s)."
    assert subject.emulator.requests[0].images == [IMAGE.data]


def test_an_image_is_refused_where_it_cannot_be_seen(subject):
    reason = reason_against(subject.record, "image")
    if reason is None:
        subject.ask(Message("user", (IMAGE, Text("What is it?"))))
        assert subject.emulator.requests[0].images == [IMAGE.data]
    else:
        with pytest.raises(UnsupportedInputError, match="no images"):
            subject.ask(Message("user", (IMAGE, Text("What is it?"))))
        assert subject.emulator.requests == []


def test_image_by_url(subject):
    subject.need("image by URL")
    url = "https://example.com/circle.png"
    subject.ask(Message("user", (Image(url=url), Text("What is it?"))))
    assert subject.emulator.requests[0].image_urls == [url]


def test_several_images_arrive_in_order_or_are_refused_by_number(subject):
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (40, 30), "red").save(buffer, "JPEG")
    message = Message("user", (IMAGE, Image(buffer.getvalue(), "image/jpeg"), Text("Compare.")))
    if reason_against(subject.record, "several images"):
        with pytest.raises(UnsupportedInputError, match="image"):
            subject.ask(message)
        assert subject.emulator.requests == []
    else:
        assert subject.ask(message).text == "I see 2 image(s)."
        assert subject.emulator.requests[0].images == [IMAGE.data, buffer.getvalue()]


def test_system_beside_an_image(subject):
    subject.need("system beside image")
    subject.ask(Message("system", (Text("Be kind."),)), Message("user", (IMAGE, Text("What is it?"))))
    assert "Be kind." in subject.emulator.requests[0].content.decode()
    assert subject.emulator.requests[0].images == [IMAGE.data]


def test_tools(subject):
    if reason_against(subject.record, "tools"):
        subject.emulator.script(completion(CALL))
        answer = subject.ask(ASKED, tools=[WEATHER])
        assert (answer.text, answer.calls, answer.end) == ("", CALLS, "tool_calls")
        assert all(answer.call_ids)
        body = subject.emulator.requests[0].body
        (asked,) = body["messages"]
        assert "tools" not in body
        assert '"name": "get_weather"' in asked["content"]
        assert asked["content"].endswith("What is the weather in Paris?")
        return
    answer = subject.ask(ASKED, tools=[WEATHER])
    ((name, arguments),) = answer.calls
    assert name == "get_weather"
    assert "city" in arguments
    assert answer.end == "tool_calls"
    assert all(answer.call_ids)


def test_a_forced_tool(subject):
    if reason_against(subject.record, "forced tool"):
        subject.emulator.script(completion(CALL))
        assert subject.ask("Hello!", tools=[WEATHER], tool_choice="required").calls == CALLS
        body = subject.emulator.requests[0].body
        assert "tool_choice" not in body
        assert (
            "Hello!\n\nReply to this with a call of one of the functions" in body["messages"][-1]["content"]
        )
    else:
        assert subject.ask("Hello!", tools=[WEATHER], tool_choice="required").calls[0][0] == "get_weather"


def test_parallel_tool_calls_stay_apart(subject):
    calls = [("get_weather", {"city": "Zürich"}), *CALLS]
    if reason_against(subject.record, "tools"):
        subject.emulator.script(completion("; ".join((CALL.replace("Paris", "Zürich"), CALL))))
    else:
        subject.emulator.script(completion(calls=calls))
    answer = subject.ask(ASKED, tools=[WEATHER])
    assert answer.calls == calls
    assert len(set(answer.call_ids)) == 2


def test_tool_history(subject):
    answer = subject.ask(ASKED, CALLED, TOLD, tools=[WEATHER])
    roles, contents = zip(
        *((message["role"], message["content"]) for message in subject.emulator.requests[0].body["messages"]),
        strict=True,
    )
    if reason_against(subject.record, "tool history"):
        assert roles == ("user", "assistant", "user")
        assert contents[1] == CALL
        assert contents[2] == 'The call of get_weather returned "It is sunny."'
    else:
        assert roles == ("user", "assistant", "tool")
        assert "sunny" in answer.text


def test_stop(subject):
    answer = subject.ask("Hello!", stop=["help"])
    assert (answer.text, answer.end) == ("Hello! How can I ", "stop")


def test_usage(subject):
    subject.emulator.script(completion("One two three", usage={"prompt_tokens": 21, "completion_tokens": 3}))
    assert subject.ask("Hello!").tokens == (21, 3)


def test_the_cost_is_told_or_estimated_and_said_to_be(subject):
    answer = subject.ask("Hello!")
    assert answer.cost > 0
    # Cloudflare tells neurons at the most, whose price depends on how many of the day are left for nothing.
    assert answer.cost_is_estimate is subject.record.name.startswith("cloudflare")


def test_unicode(subject):
    text = "Grüße, 日本 🦙\u2028!"
    subject.emulator.script(completion(text))
    assert subject.ask(text).text == text
    assert subject.emulator.requests[0].body["messages"][0]["content"] in (
        text,
        [{"type": "text", "text": text}],
    )


def test_max_tokens_is_sent_and_a_cut_answer_says_so(subject):
    answer = subject.ask("Hello!", max_tokens=3)
    assert (answer.text, answer.end) == ("Hello! How can", "length")
    subject.ask("Hello!")
    assert [request.body["max_tokens"] for request in subject.emulator.requests] == [3, 1024]


def test_a_bad_key(subject):
    with pytest.raises(AuthenticationError) as caught:
        subject.ask("Hello!", api_key="wrong-key-31415926")
    assert "wrong-key" not in str(caught.value)
    assert len(subject.emulator.requests) == 1


def test_429_is_tried_again(subject):
    subject.emulator.script(subject.emulator.refusal(429, retry_after=0), completion("Hi!"))
    assert subject.ask("Hello!").text == "Hi!"
    assert len(subject.emulator.requests) == 2


def test_429_at_last(subject):
    subject.emulator.script(subject.emulator.refusal(429))
    with pytest.raises(RateLimitError) as caught:
        subject.ask("Hello!", max_retries=0)
    assert caught.value.provider == subject.record.name
    assert caught.value.retryable


def test_a_cut_answer_is_an_error_and_not_a_short_answer(subject):
    def cut(received):
        whole = subject.emulator.dialect.encode(completion("One two three four five six"), received)
        if subject.streamed:
            return replace(whole, steps=(*whole.steps[:4], HANG_UP))
        return replace(whole, steps=(whole.steps[0][:30], HANG_UP))

    subject.emulator.script(cut)
    with pytest.raises(TruncatedStreamError) as caught:
        subject.ask("Hello!")
    if subject.streamed:
        assert caught.value.partial.text.startswith("One")
    assert len(subject.emulator.requests) == 1
