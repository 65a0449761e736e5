"""LangChain, LlamaIndex and Ray send the same requests and give the same results for one schema, method and conversation."""

import base64
import json
from dataclasses import replace

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import HumanMessage
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.prompts import ChatPromptTemplate
from pydantic import BaseModel

from llama_vision.core.messages import ToolCall
from llama_vision.core.models import ModelInfo
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision, StructuredOutputError
from llama_vision.providers import UNBOUNDED
from llama_vision.ray import BatchAsker
from llama_vision.testing import Answer, ScriptedServer


class Shape(BaseModel):
    """A drawn shape."""

    color: str
    size: float


IMAGE, SECOND = (SAMPLE_IMAGES[name].read_bytes() for name in ("circle", "sign"))
FORCED_CALLS = dict.fromkeys(("max_tokens", "tools", "tool_choice"), UNBOUNDED)
RECORDS = {
    "enforces schemas": ({"enforces_schema": True}, None),
    "forces calls": ({}, FORCED_CALLS),
    "forces one call": ({}, {**FORCED_CALLS, "parallel_tool_calls": UNBOUNDED}),
    "takes text alone": ({"tools": False}, {"max_tokens": UNBOUNDED}),
}
ASKED = [
    *((record, "auto") for record in RECORDS),
    *(("enforces schemas", method) for method in ("json_schema", "function_calling", "json_mode", "prompt")),
    ("takes text alone", "function_calling"),
]
CONVERSATIONS = {
    "image first": [IMAGE, "What is it?"],
    "text first": ["What is it?", IMAGE],
    "two images": [IMAGE, SECOND, "What are they?"],
    "text, image, text": ["Look:", IMAGE, "What is it?"],
    "image alone": [IMAGE],
    "text alone": ["What is red?"],
    "two texts": ["Look at it.", "What is it?"],
}
GOOD, BAD = '{"color": "red", "size": 2.5}', '{"color": "red"}'
REPLIES = {
    "fits": [GOOD],
    "does not fit, then fits": [BAD, GOOD],
    "NaN, then fits": ['{"color": "red", "size": NaN}', GOOD],
    "infinite, then fits": ['{"color": "red", "size": 1e999}', GOOD],
    "no JSON, then fits": ['{"color": "red",, }', GOOD],
    "a list, then fits": ["[]", GOOD],
    "never fits": [BAD, BAD, '{"size": []}'],
    "cut off": [Answer('{"color": "re', finish_reason="length")],
}


def answers(replies):
    """Reply in the form that the request asks for, the last reply again and again."""

    def answer(request):
        reply = replies[min(len(server_of[request.body["model"]].requests), len(replies)) - 1]
        reply = reply if isinstance(reply, Answer) else Answer(reply)
        if "tools" in request.body:
            name = request.body["tools"][0]["function"]["name"]
            reply = replace(reply, text="", tool_calls=(ToolCall(None, name, reply.text),))
        return reply

    server_of = {}
    return answer, server_of


def ask_all(record, method, conversation, replies, *, streamed):
    """Ask in all three ways; of each, the bodies that were sent and what came of it."""
    users = {"LangChain": with_langchain, "LlamaIndex": with_llamaindex}
    texts = [part for part in conversation if isinstance(part, str)]
    if method == "auto" and not streamed and len(texts) == 1 and conversation[-1] is texts[0]:
        users["Ray"] = with_ray  # whose images stand before its one text
    found = {}
    for user, ask in users.items():
        answer, server_of = answers(replies)
        with ScriptedServer() as server:
            info, parameters = RECORDS[record]
            model = ModelInfo("any", "any", **info)
            provider = replace(server.provider, models=(model,), parameters=parameters)
            server_of["any"] = server
            server.always(answer)
            result = ask({"provider": provider, "model": "any"}, method, conversation, streamed)
            found[user] = [request.body for request in server.requests], result
    return found


def with_langchain(options, method, conversation, streamed):
    blocks = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image", "base64": base64.b64encode(part).decode(), "mime_type": "image/png"}
        for part in conversation
    ]
    content = conversation[0] if conversation == CONVERSATIONS["text alone"] else blocks
    runnable = ChatLlamaVision(**options).with_structured_output(Shape, method=method)
    try:
        if streamed:
            return list(runnable.stream([HumanMessage(content)]))[-1].model_dump_json()
        return runnable.invoke([HumanMessage(content)]).model_dump_json()
    except OutputParserException as error:
        return str(error).split("\nFor troubleshooting")[0]


def with_llamaindex(options, method, conversation, streamed):
    blocks = [
        TextBlock(text=part) if isinstance(part, str) else ImageBlock(image=part) for part in conversation
    ]
    prompt = ChatPromptTemplate([ChatMessage(role="user", blocks=blocks)])
    model = LlamaVision(**options, structured_output=method)
    try:
        if streamed:
            return list(model.stream_structured_predict(Shape, prompt))[-1].model_dump_json()
        return model.structured_predict(Shape, prompt).model_dump_json()
    except StructuredOutputError as error:
        return str(error).removesuffix(" [scripted, any]")


def with_ray(options, method, conversation, streamed):
    assert (method, streamed) == ("auto", False)
    *images, text = conversation
    asker = BatchAsker(text, image_column="image" if images else None, schema=Shape, **options)
    found = asker({"image": [images], "id": [1]})
    (output,), (error,) = found["json"], found["error"]
    return error or Shape.model_validate_json(output).model_dump_json()


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("replies", REPLIES)
@pytest.mark.parametrize(("record", "method"), ASKED)
@pytest.mark.slow_beyond(36)
def test_requests_and_results_are_the_same(record, method, replies, streamed):
    conversation = CONVERSATIONS["text first" if streamed else "image first"]
    expect_alike(record, method, conversation, REPLIES[replies], streamed=streamed)


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize(("record", "method"), ASKED)
@pytest.mark.slow_beyond(16)
def test_every_conversation_is_sent_the_same(record, method, conversation):
    replies = REPLIES["does not fit, then fits"]
    expect_alike(record, method, CONVERSATIONS[conversation], replies, streamed=False)


def expect_alike(record, method, conversation, replies, *, streamed):
    found = ask_all(record, method, conversation, replies, streamed=streamed)
    bodies, result = found.pop("LangChain")
    assert len(bodies) == (len(replies) if method in ("auto", "prompt") else 1)
    if replies[len(bodies) - 1] == GOOD:
        assert json.loads(result) == json.loads(GOOD)
    else:
        assert "It was: " in result
    for user, (others, other) in found.items():
        assert others == bodies, user
        assert other == result, user


def test_the_question_stands_after_the_image_and_before_the_instructions():
    (body,), _ = ask_all("takes text alone", "auto", CONVERSATIONS["text first"], [GOOD], streamed=False)[
        "LlamaIndex"
    ]
    image, text = body["messages"][0]["content"]
    assert image["type"] == "image_url"
    assert text["text"].startswith("What is it?\n\nAnswer with one JSON value")
