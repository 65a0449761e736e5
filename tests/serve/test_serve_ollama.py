"""The official `ollama` client against the server: the tiny model's real answers."""

import json

import ollama
import pytest

from llama_vision.demo import SAMPLE_IMAGES


@pytest.fixture(scope="module")
def client(served):
    client = ollama.Client(served.url)
    yield client
    client._client.close()


def get_weather(city: str) -> str:
    """Get the weather in a city.

    Args:
        city: The city.
    """
    return f"sunny in {city}"


def _user(question, *names):
    return {"role": "user", "content": question, "images": [str(SAMPLE_IMAGES[name]) for name in names]}


def test_chat_sees_an_image(client):
    reply = client.chat("llama3.2-vision", [_user("What color is the circle?", "circle")])
    assert "blue" in reply.message.content.lower()
    assert reply.done
    assert reply.done_reason == "stop"
    assert reply.model == "llama3.2-vision"
    assert reply.eval_count > 0
    assert reply.prompt_eval_count > 0
    assert reply.total_duration > reply.eval_duration >= 0


def test_chat_streams_lines_that_add_up_to_the_whole(client):
    whole = client.chat("tiny", [_user("Describe the image.", "circle")]).message.content
    parts = list(client.chat("tiny", [_user("Describe the image.", "circle")], stream=True))
    assert "".join(part.message.content for part in parts) == whole
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].eval_count > 3


def test_generate_answers_a_prompt_and_streams(client):
    image = SAMPLE_IMAGES["circle"].read_bytes()
    whole = client.generate("tiny", "Describe the image.", images=[image])
    parts = client.generate("tiny", "Describe the image.", images=[image], system="", stream=True)
    assert whole.response == "".join(part.response for part in parts)
    assert "circle" in whole.response


def test_a_tool_is_called_with_an_object_and_its_result_taken(client):
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    reply = client.chat("tiny", messages, tools=[get_weather])
    streamed = list(client.chat("tiny", messages, tools=[get_weather], stream=True))
    calls = [call for part in streamed for call in part.message.tool_calls or ()]
    [call] = reply.message.tool_calls
    assert call.function.name == "get_weather"
    assert dict(call.function.arguments) == {"city": "Paris"}
    assert calls == [call]
    messages += [reply.message, {"role": "tool", "tool_name": "get_weather", "content": "sunny"}]
    assert client.chat("tiny", messages, tools=[get_weather]).message.content


def test_a_format_is_kept_to(client):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    reply = client.chat("tiny", [_user("How many circles are there?", "shapes")], format=schema)
    assert set(json.loads(reply.message.content)) == {"n"}
    anything = client.generate("tiny", "Say something.", format="json", options={"num_predict": 40})
    assert anything.response.lstrip().startswith("{")


def test_options_shape_the_reply(client):
    cut = client.generate(
        "tiny", "Tell me a story.", options={"num_predict": 2, "num_ctx": 2048, "temperature": 0}
    )
    assert cut.eval_count == 2
    assert cut.done_reason == "length"
    stopped = client.chat("tiny", [_user("Describe the image.", "circle")], options={"stop": [" on"]})
    assert stopped.message.content.endswith("circle")


def test_the_model_is_listed_shown_and_loaded(client):
    assert [model.model for model in client.list().models] == ["tiny", "llama3.2-vision"]
    shown = client.show("tiny")
    assert shown.capabilities == ["completion", "vision", "tools"]
    assert shown.modelinfo["general.architecture"] == "mllama"
    assert client.ps().models
    assert client.generate("tiny", keep_alive="5m").done_reason == "load"
    assert client.chat("tiny", keep_alive=-1).done_reason == "load"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"options": {"mirostat": 2}}, "options.mirostat"),
        ({"options": {"presence_penalty": 1.0}}, "presence_penalty"),
        ({"think": True}, "think"),
        ({"raw": True}, "raw"),
        ({"template": "{{ .Prompt }}"}, "template"),
        ({"context": [1, 2]}, "context"),
        ({"suffix": "x"}, "suffix"),
    ],
)
def test_what_would_have_no_effect_is_refused_by_name(client, options, problem):
    with pytest.raises(ollama.ResponseError, match=problem) as failed:
        client.generate("tiny", "Hi", **options)
    assert failed.value.status_code == 400


def test_an_unknown_model_is_a_404_that_lists_what_there_is(client):
    with pytest.raises(ollama.ResponseError, match="There is: tiny") as failed:
        client.chat("llava", [_user("Hi")])
    assert failed.value.status_code == 404


def test_an_unreadable_image_is_told(served):
    messages = [{"role": "user", "content": "Hi", "images": ["bm90IGFuIGltYWdl"]}]
    failed = served.post("/api/chat", {"model": "tiny", "messages": messages})
    assert failed.status_code == 400
    assert "image" in failed.json()["error"]


def test_the_version_is_ours(served):
    assert served.get("/api/version").json().keys() == {"version"}


async def test_the_asynchronous_client_streams(served):
    client = ollama.AsyncClient(served.url)
    async with client._client:
        parts = await client.chat("tiny", [_user("Describe the image.", "circle")], stream=True)
        assert "circle" in "".join([part.message.content async for part in parts])
