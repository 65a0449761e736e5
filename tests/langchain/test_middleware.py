"""`AskAboutImagesFirst`: the model is asked about the image alone, and offered the tools with the answer."""

import base64

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage

from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.langchain import ChatLlamaVision
from llama_vision.langchain.middleware import AskAboutImagesFirst
from llama_vision.testing import ScriptedServer, tool_call

IMAGE = {
    "type": "image",
    "base64": base64.b64encode(SAMPLE_IMAGES["circle"].read_bytes()).decode(),
    "mime_type": "image/png",
}
QUESTION = HumanMessage([{"type": "text", "text": "How warm is it where this is?"}, IMAGE])


def get_weather(city: str) -> str:
    """Tell the weather in a city."""
    return f"20 degrees in {city}."


@pytest.mark.parametrize("is_async", [False, True])
async def test_the_image_is_asked_about_first_and_the_tools_come_with_the_answer(is_async):
    script = ["The tower of Pisa.", tool_call("get_weather", city="Pisa"), "It is 20 degrees.", "Goodbye."]
    with ScriptedServer(*script) as server:
        model = ChatLlamaVision(**server.model_options)
        agent = create_agent(model, [get_weather], middleware=[AskAboutImagesFirst()])
        state = {"messages": [QUESTION]}
        done = await agent.ainvoke(state) if is_async else agent.invoke(state)
        assert done["messages"][-1].text == "It is 20 degrees."
        assert done["messages"][0].content == QUESTION.content  # the conversation keeps the image
        about, first, second = (request.body for request in server.requests)
        assert "tools" not in about
        assert len(server.requests[0].images) == 1
        assert "Describe the image." in server.requests[0].text
        for body, request in ((first, server.requests[1]), (second, server.requests[2])):
            assert body["tools"]
            assert request.images == []
            assert "The image: The tower of Pisa." in str(body["messages"])
        # What was asked once is not asked again.
        agent.invoke({"messages": [QUESTION]})
        assert len(server.requests) == 4


def test_without_tools_or_images_nothing_is_asked_first():
    with ScriptedServer("A circle.", "Hello.") as server:
        model = ChatLlamaVision(**server.model_options)
        create_agent(model, [], middleware=[AskAboutImagesFirst()]).invoke({"messages": [QUESTION]})
        create_agent(model, [get_weather], middleware=[AskAboutImagesFirst()]).invoke({"messages": "Hi"})
        assert len(server.requests[0].images) == 1


def test_the_warning_points_at_the_users_line(monkeypatch):
    from llama_vision.adaptation import images

    monkeypatch.setattr(images, "_warned", set())
    with (
        ScriptedServer("A circle.") as server,
        pytest.warns(UserWarning, match="Tools are offered") as warned,
    ):
        ChatLlamaVision(**server.model_options).bind_tools([get_weather]).invoke([QUESTION])
    assert [each.filename for each in warned] == [__file__]
