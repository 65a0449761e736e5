"""The official `openai` client against the server: the tiny model's real answers."""

import base64
import json

import openai
import pytest

from llama_vision.demo import SAMPLE_IMAGES
from tests.pdfs import color_content, pdf_of


@pytest.fixture(scope="module")
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def _image(name):
    data = base64.b64encode(SAMPLE_IMAGES[name].read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def _ask(client, question, *images, **options):
    content = [*map(_image, images), {"type": "text", "text": question}]
    return client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": content}], **options
    )


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def test_an_image_is_answered(client):
    completion = _ask(client, "What color is the circle?", "circle")
    assert "blue" in completion.choices[0].message.content.lower()
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == "tiny"
    assert (
        completion.usage.total_tokens
        == completion.usage.prompt_tokens + completion.usage.completion_tokens
        > 0
    )


def test_a_stream_says_the_same_as_a_whole_reply_and_ends_with_the_usage(client):
    whole = _ask(client, "Describe the image.", "circle")
    chunks = list(
        _ask(client, "Describe the image.", "circle", stream=True, stream_options={"include_usage": True})
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert len([chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]) > 3
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_a_stream_has_no_usage_where_none_is_asked_for(client):
    chunks = list(_ask(client, "What color is the circle?", "circle", stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_forced_tool_is_called_whole_and_streamed(client):
    options = {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}}
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    whole = client.chat.completions.create(model="tiny", messages=messages, **options)
    [call] = whole.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city"}
    assert whole.choices[0].finish_reason == "tool_calls"
    chunks = list(client.chat.completions.create(model="tiny", messages=messages, stream=True, **options))
    [streamed] = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert (streamed.function.name, streamed.function.arguments) == (
        call.function.name,
        call.function.arguments,
    )
    assert streamed.id
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_a_conversation_with_a_tool_result_goes_on(client):
    called = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
    }
    completion = client.chat.completions.create(
        model="tiny",
        tools=[WEATHER],
        messages=[
            {"role": "developer", "content": "You are helpful."},
            {"role": "user", "content": "What is the weather in Paris?"},
            {"role": "assistant", "content": None, "tool_calls": [called]},
            {"role": "tool", "tool_call_id": "call_1", "content": '{"weather": "sunny"}'},
        ],
    )
    assert completion.choices[0].message.content


def test_a_schema_is_kept_to(client):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    response_format = {
        "type": "json_schema",
        "json_schema": {"name": "count", "schema": schema, "strict": True},
    }
    completion = _ask(client, "How many circles are there?", "shapes", response_format=response_format)
    assert set(json.loads(completion.choices[0].message.content)) == {"n"}


def test_json_mode_gives_json(client):
    completion = _ask(
        client, "Describe the image.", "circle", response_format={"type": "json_object"}, max_tokens=60
    )
    assert completion.choices[0].message.content.lstrip().startswith("{")


def test_stop_strings_and_limits_end_a_reply(client):
    stopped = _ask(client, "Describe the image.", "circle", stop=" on")
    assert stopped.choices[0].message.content.endswith("circle")
    assert stopped.choices[0].finish_reason == "stop"
    cut = _ask(client, "Describe the image.", "circle", max_completion_tokens=2)
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage.completion_tokens == 2


def test_a_seed_repeats_a_sample(client):
    answers = {
        _ask(client, "Describe the image.", "shapes", temperature=1.5, seed=7).choices[0].message.content
        for _ in range(2)
    }
    assert len(answers) == 1


def test_several_images_are_seen(client):
    completion = _ask(client, "How many objects are there?", "circle", "shapes")
    assert completion.choices[0].message.content


def test_models_are_listed_and_found(client):
    assert [model.id for model in client.models.list()] == ["tiny", "llama3.2-vision"]
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError, match="There is: tiny"):
        client.models.retrieve("gpt-4o")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"n": 2}, "n: Input should be 1"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"temperature": 1000}, "temperature"),
        ({"extra_body": {"guided_json": {}}}, "guided_json is not supported here: leave it out"),
        ({"tool_choice": "required"}, "'required' needs tools"),
        ({"response_format": {"type": "json_schema"}}, "schema is missing"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
    ],
)
def test_what_would_have_no_effect_is_refused_by_name(client, options, problem):
    with pytest.raises(openai.BadRequestError, match=problem):
        _ask(client, "Hi", **options)


def test_options_that_change_nothing_are_taken(client):
    options = {
        "n": 1,
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "logprobs": False,
        "user": "me",
        "store": False,
    }
    assert _ask(client, "What color is the circle?", "circle", **options).choices[0].message.content


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([], "messages"),
        ([{"role": "user"}], "content"),
        ([{"role": "wizard", "content": "Hi"}], "messages.0"),
        ([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}], "input_audio"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "/etc/passwd"}}]}], "http"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}], "image"),
        ([{"role": "system", "content": [_image("circle")]}], "text"),
    ],
)
def test_a_malformed_conversation_is_told_what_is_wrong(client, messages, problem):
    with pytest.raises(openai.BadRequestError, match=problem):
        client.chat.completions.create(model="tiny", messages=messages)


def test_a_prompt_beyond_the_context_has_openais_code(client):
    with pytest.raises(openai.BadRequestError) as failed:
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "word " * 4000}])
    assert failed.value.code == "context_length_exceeded"


def test_an_unknown_model_is_a_404_that_lists_what_there_is(client):
    with pytest.raises(openai.NotFoundError, match="There is: tiny") as failed:
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}])
    assert failed.value.code == "model_not_found"


def test_pages_of_a_pdf_are_seen(client):
    document = base64.b64encode(pdf_of(color_content(255, 0, 0), color_content(0, 0, 255))).decode()
    file = {"filename": "colors.pdf", "file_data": f"data:application/pdf;base64,{document}"}
    content = [{"type": "file", "file": file}, {"type": "text", "text": "Hi"}]
    messages = [{"role": "user", "content": content}]
    one = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "Hi"}])
    completion = client.chat.completions.create(model="tiny", messages=messages)
    assert completion.choices[0].message.content
    assert completion.usage.prompt_tokens > one.usage.prompt_tokens + 2
    file["file_data"] = base64.b64encode(b"%PDF-1.7 damaged").decode()
    with pytest.raises(openai.BadRequestError, match=r"colors\.pdf"):
        client.chat.completions.create(model="tiny", messages=messages)


async def test_the_asynchronous_client_streams(served):
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none") as client:
        stream = await client.chat.completions.create(
            model="llama3.2-vision:latest",
            messages=[
                {
                    "role": "user",
                    "content": [_image("circle"), {"type": "text", "text": "Describe the image."}],
                }
            ],
            stream=True,
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert "circle" in text
