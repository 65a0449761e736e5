"""`llama_vision.testing`, used as its users do: real models, a real socket, and a script."""

import asyncio
import os
import subprocess
import sys
import time

import pydantic
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool

from llama_vision import Usage
from llama_vision.backends import create_backend
from llama_vision.backends.batches import BatchClient
from llama_vision.core.errors import (
    AuthenticationError,
    InvalidRequestError,
    ModelNotFoundError,
    RateLimitError,
)
from llama_vision.core.messages import ToolCall
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision
from llama_vision.testing import Answer, Failure, ReceivedRequest, ScriptedServer, tool_call
from tests.call_styles import all_styles
from tests.emulator.asking import question

IMAGE = SAMPLE_IMAGES["circle"].read_bytes()


class Shape(pydantic.BaseModel):
    """A shape and its color."""

    color: str
    sides: int


def get_weather(city: str) -> str:
    """Tell the weather in a city."""
    return f"Rain in {city}."


def chat(server, **options):
    return ChatLlamaVision(**server.model_options, **options)


def test_every_style_of_both_frameworks_gets_what_the_script_says(llama_vision_server):
    llama_vision_server.always("A blue circle.")
    answers = all_styles("What is it?", [IMAGE], **llama_vision_server.model_options)
    for style, answer in answers.items():
        assert (answer["text"], answer["usage"], answer["end"]) == ("A blue circle.", (10, 3), "stop"), style
    assert len(llama_vision_server.requests) == len(answers) > 20
    for request in llama_vision_server.requests:
        assert (request.images, request.text, request.tools) == ([IMAGE], "What is it?", [])
    assert {request.streamed for request in llama_vision_server.requests} == {True, False}


def test_tool_calls_arrive_in_every_style(llama_vision_server):
    llama_vision_server.always(tool_call("get_weather", city="Paris ☂"))
    tool = {
        "type": "function",
        "function": {"name": "get_weather", "description": "", "parameters": {"type": "object"}},
    }
    answers = all_styles("Weather?", [], [tool], **llama_vision_server.model_options)
    for style, answer in answers.items():
        if "calls" in answer:
            ((call_id, name, arguments),) = answer["calls"]
            assert (name, arguments, answer["end"]) == ("get_weather", {"city": "Paris ☂"}, "tool_calls"), (
                style
            )
            assert call_id.startswith("call_")
    assert all(request.tools == ["get_weather"] for request in llama_vision_server.requests)


def test_an_agents_errand_with_langchain(llama_vision_server):
    llama_vision_server.script(tool_call("get_weather", city="Paris"), "It rains in Paris.")
    model = chat(llama_vision_server).bind_tools([get_weather])
    asked = HumanMessage("How is the weather in Paris?")
    calling = model.invoke([asked])
    (call,) = calling.tool_calls
    answer = model.invoke([asked, calling, ToolMessage(get_weather(**call["args"]), tool_call_id=call["id"])])
    assert answer.text == "It rains in Paris."
    turns = llama_vision_server.requests[1].messages
    assert [turn["role"] for turn in turns] == ["user", "assistant", "tool"]
    assert turns[1]["tool_calls"][0]["id"] == turns[2]["tool_call_id"]
    assert llama_vision_server.requests[1].text == "Rain in Paris."


def test_a_tool_with_llamaindex(llama_vision_server):
    llama_vision_server.script(tool_call("get_weather", city="Paris"))
    model = LlamaVision(**llama_vision_server.model_options)
    response = model.predict_and_call([FunctionTool.from_defaults(get_weather)], "Weather in Paris?")
    assert str(response) == "Rain in Paris."


def test_an_object_is_what_structured_output_gets(llama_vision_server):
    llama_vision_server.always({"color": "blue", "sides": 0})
    found = chat(llama_vision_server).with_structured_output(Shape).invoke("What is it?")
    assert found == Shape(color="blue", sides=0)
    llm = LlamaVision(**llama_vision_server.model_options)
    assert llm.structured_predict(Shape, PromptTemplate("What is it?")) == found
    assert [request.body["response_format"]["type"] for request in llama_vision_server.requests] == [
        "json_schema"
    ] * 2


def test_refused_and_asked_again_at_once(llama_vision_server):
    refusals = [Failure(429, "Slow down"), Failure(503), Failure(500), Failure(429), Failure(502)]
    llama_vision_server.script(*refusals, "A cat.", Failure(429), "A dog.")
    began = time.monotonic()
    assert chat(llama_vision_server, max_retries=5).invoke("What?").text == "A cat."
    assert len(llama_vision_server.requests) == 6
    response = asyncio.run(LlamaVision(**llama_vision_server.model_options).acomplete("What?"))
    assert response.text == "A dog."
    assert time.monotonic() - began < 7  # left to itself it would wait for 8 seconds at least


def test_failures_have_their_status_and_words(llama_vision_server):
    llama_vision_server.script(Failure(429, "Slow down", retry_after_s=30), Failure(401, "Who are you?"))
    model = chat(llama_vision_server, max_retries=0)
    with pytest.raises(RateLimitError, match="Slow down") as refused:
        list(model.stream("What?"))
    assert refused.value.retry_after == 30
    with pytest.raises(AuthenticationError, match="Who are you"):
        model.invoke("What?")


def test_a_failure_that_asks_for_no_patience(llama_vision_server):
    llama_vision_server.script(Failure(429, retry_after_s=None))
    with pytest.raises(RateLimitError) as refused:
        chat(llama_vision_server, max_retries=0).invoke("What?")
    assert refused.value.retry_after is None


@pytest.mark.parametrize("status", [200, 302, 399, 600])
def test_what_is_no_failure_is_refused(status):
    with pytest.raises(ValueError, match=f"not {status}"):
        Failure(status)


def test_pieces_come_slowly(llama_vision_server):
    llama_vision_server.script(Answer("One two three", pause_s=0.15), Answer("All", pause_s=0.3))
    began = time.monotonic()
    pieces = [(chunk.text, time.monotonic() - began) for chunk in chat(llama_vision_server).stream("Count!")]
    words = [(text, at) for text, at in pieces if text]
    assert [text for text, _ in words] == ["One", " two", " three"]
    assert words[2][1] - words[0][1] > 0.25
    began = time.monotonic()
    assert chat(llama_vision_server).invoke("Count!").text == "All"
    assert time.monotonic() - began > 0.29


def test_who_leaves_a_slow_stream_does_not_hold_up_the_end():
    began = time.monotonic()
    with ScriptedServer(Answer("One two three", pause_s=0.1), Answer("Late", pause_s=60)) as server:
        for chunk in chat(server).stream("Count!"):
            if chunk.text:
                break

        async def in_a_hurry():
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(LlamaVision(**server.model_options).acomplete("What?"), 0.5)

        asyncio.run(in_a_hurry())
    assert time.monotonic() - began < 10


def test_usage_reason_and_several_calls(llama_vision_server):
    told = Usage(input_tokens=1700, output_tokens=4, cached_input_tokens=1600, cost_usd=0.0025)
    calls = (tool_call("first"), ToolCall("mine", "second", '{"cut'))
    llama_vision_server.script(Answer("A cat on", finish_reason="length", usage=told))
    llama_vision_server.script(Answer("Hm.", tool_calls=calls, usage=Usage()))
    cut = chat(llama_vision_server).invoke("What?")
    assert cut.response_metadata["finish_reason"] == "length"
    assert cut.response_metadata["cost_usd"] == 0.0025
    assert cut.usage_metadata["input_token_details"]["cache_read"] == 1600
    message = chat(llama_vision_server).invoke("What?")
    assert message.usage_metadata is None
    assert message.text == "Hm."
    assert [call["name"] for call in message.tool_calls] == ["first"]
    assert [(call["id"], call["args"]) for call in message.invalid_tool_calls] == [("mine", '{"cut')]


def test_a_function_looks_at_the_request_first(llama_vision_server):
    def told(request: ReceivedRequest):
        return f"{len(request.images)} images, {request.headers['content-type']}"

    llama_vision_server.always(told)
    blocks = [ImageBlock(image=IMAGE), TextBlock(text="What?"), ImageBlock(image=IMAGE)]
    response = LlamaVision(**llama_vision_server.model_options).chat([ChatMessage(blocks=blocks)])
    assert response.message.content == "2 images, application/json"
    assert all(url.startswith("data:image/png") for url in llama_vision_server.requests[0].image_urls)


def test_many_at_once_each_take_one_line(llama_vision_server):
    llama_vision_server.script(*(str(number) for number in range(20)))
    said = chat(llama_vision_server).batch(["What?"] * 20)
    assert sorted(int(message.text) for message in said) == list(range(20))
    assert len({message.response_metadata["id"] for message in said}) == 20


# What is wrong with a test is heard of.


def test_lines_that_nobody_asked_for():
    with pytest.raises(AssertionError, match="2 lines"), ScriptedServer("One", "Two", "Three") as server:
        chat(server).invoke("Count!")


def test_more_requests_than_lines_also_where_the_error_was_swallowed():
    def test():
        with ScriptedServer("One") as server:
            chat(server).invoke("Count!")
            with pytest.raises(InvalidRequestError, match="no line for request 2"):
                chat(server).invoke("And on!")
            assert len(server.requests) == 2  # 400 is not tried again

    with pytest.raises(AssertionError, match="no line for request 2: 'And on!'"):
        test()


def test_a_function_of_the_script_that_fails_fails_the_test():
    def check(request):
        pytest.fail("There should be an image")

    def test():
        with ScriptedServer(check) as server:
            with pytest.raises(InvalidRequestError):
                chat(server).invoke("What?")
            server.script("unplayed, which is the lesser evil")

    with pytest.raises(pytest.fail.Exception, match="should be an image"):
        test()


def test_what_went_wrong_in_the_test_itself_is_not_hidden():
    with pytest.raises(ZeroDivisionError), ScriptedServer("One"):
        raise ZeroDivisionError


def test_a_line_that_can_not_be_said():
    def test():
        with ScriptedServer(lambda _: 7) as server, pytest.raises(InvalidRequestError):
            chat(server).invoke("What?")

    with pytest.raises(TypeError, match=r"not 7"):
        test()


def test_outside_of_with_there_is_no_server():
    with pytest.raises(RuntimeError, match="inside `with"):
        _ = ScriptedServer().model_options
    with ScriptedServer() as server:
        other_path = ChatLlamaVision(provider=server.provider, base_url=server.base_url + "/elsewhere")
        with pytest.raises(Exception, match="nothing at /v1/elsewhere/chat/completions"):
            other_path.invoke("What?")


def test_the_environment_of_the_user_changes_nothing(monkeypatch):
    monkeypatch.setenv("LLAMA_VISION_PROVIDER", "deepinfra")
    monkeypatch.setenv("LLAMA_VISION_MODEL", "mine")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with ScriptedServer("A cat.", "A dog.") as server:
        assert chat(server).invoke("What?").text == "A cat."
        assert asyncio.run(chat(server).ainvoke("What?")).text == "A dog."
        assert {request.body["model"] for request in server.requests} == {"scripted-vision"}
        assert "authorization" not in server.requests[0].headers
    assert (os.environ["NO_PROXY"], os.environ.get("no_proxy")) == ("example.org", None)


ALONE = """
import sys
sys.modules["pytest"] = None  # it is not installed
from llama_vision.testing import ScriptedServer
from llama_vision.langchain import ChatLlamaVision

with ScriptedServer("A cat.", "A dog.") as server:
    model = ChatLlamaVision(**server.model_options)
    print(model.invoke("What?").text, *(chunk.text for chunk in model.stream("What?")))
print(sorted(name for name in ("torch", "starlette", "llama_index") if name in sys.modules))
"""


def test_it_needs_neither_pytest_nor_a_server_package_and_leaves_nothing_open():
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", ALONE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].split() == ["A", "cat.", "A", "dog."]
    assert done.stdout.splitlines()[1] == "[]"


@pytest.mark.slow
def test_a_server_that_is_never_left_lets_the_process_end():
    code = """
from llama_vision.langchain import ChatLlamaVision
from llama_vision.testing import Answer, ScriptedServer

server = ScriptedServer("Hi", Answer("Late", pause_s=60)).__enter__()
print(ChatLlamaVision(**server.model_options).invoke("Hi").text)
try:
    ChatLlamaVision(**server.model_options, timeout=0.1, max_retries=0).invoke("Hi")
except Exception as error:
    print(type(error).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "Hi"


def test_a_batch_takes_its_lines_when_it_is_created():
    with ScriptedServer("A cat.", Failure(400, "Too odd."), "A dog.") as server:
        model = ChatLlamaVision(**server.model_options)
        job = model.submit_batch(["One?", "Two?", "Three?"])
        assert [request.text for request in server.requests] == ["One?", "Two?", "Three?"]
        first, second, third = job.cancel().results()
        again = model.batch_job(job.id).refresh()
        assert (first.text, third.text, again.status) == ("A cat.", "A dog.", "completed")
        assert isinstance(second, InvalidRequestError)
        with pytest.raises(ModelNotFoundError):
            model.batch_job("batch_7").refresh()


def test_a_batch_whose_creation_went_unanswered_is_in_the_list():
    with ScriptedServer("A cat.") as server:
        client = BatchClient(create_backend(server.provider), question())
        batch = client.submit([question()])
        assert client.run(client.find(batch.input_file_id)) == batch
