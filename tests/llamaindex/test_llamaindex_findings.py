"""The traps of LlamaIndex that other models fall into: calls, replies, options, saved models, and labels of images."""

import asyncio
import copy
import json
import pickle
import time
from importlib import metadata

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ImageBlock,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.program.utils import process_streaming_objects
from llama_index.core.response_synthesizers import ResponseMode
from llama_index.core.schema import ImageDocument, ImageNode
from llama_index.core.tools import FunctionTool

from llama_vision.core.errors import ImageError, UnsupportedInputError
from llama_vision.llamaindex import LlamaVision
from tests.emulator import Wait, chunks, completion, event_stream
from tests.llamaindex.cats import AT_EVERY_PROVIDER, IMAGE, TOM, Cat, called, model_at
from tests.llamaindex.engines import MODES, chat_engine, engine_over
from tests.llamaindex.gallery import BOTH, FILES, in_base64, nodes_of, seen
from tests.llamaindex.test_llamaindex_events import ENDPOINTS, MESSAGES, call


def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return city


def get_time(zone: str) -> str:
    """Get the time of a zone."""
    return zone


TOOLS = [FunctionTool.from_defaults(get_weather), FunctionTool.from_defaults(get_time)]
CALLS = [("get_weather", {"city": "Zürich"}), ("get_time", {"zone": "CET"})]


def streamed(model, *, asynchronous):
    async def astreamed():
        stream = await model.astream_chat_with_tools(TOOLS, "Both?", allow_parallel_tool_calls=True)
        return [item async for item in stream]

    if asynchronous:
        return asyncio.run(astreamed())
    return list(model.stream_chat_with_tools(TOOLS, "Both?", allow_parallel_tool_calls=True))


def in_one_delta(calls):
    """Stream several calls side by side in each chunk, as some servers do."""
    whole = [
        {"index": at, "id": f"c{at}", "type": "function", "function": {"name": name, "arguments": ""}}
        for at, (name, _) in enumerate(calls)
    ]
    texts = [json.dumps(arguments) for _, arguments in calls]
    halves = [
        [{"index": at, "function": {"arguments": text[part]}} for at, text in enumerate(texts)]
        for part in (slice(None, 5), slice(5, None))
    ]
    head, *_ = chunks(completion("x"))
    deltas = [
        {**head, "choices": [{"index": 0, "delta": {"tool_calls": each}, "finish_reason": None}]}
        for each in (whole, *halves)
    ]
    *_, last = chunks(completion(calls=calls))
    return event_stream(*deltas, last, "[DONE]")


@BOTH
@pytest.mark.parametrize("asynchronous", [True, False])
def test_several_calls_in_one_delta_all_arrive(emulator, model_class, asynchronous):
    emulator.script(in_one_delta(CALLS))
    model = model_at(emulator, model_class=model_class)
    last = streamed(model, asynchronous=asynchronous)[-1]
    blocks = [block for block in last.message.blocks if isinstance(block, ToolCallBlock)]
    assert [(block.tool_call_id, block.tool_name, block.tool_kwargs) for block in blocks] == [
        ("c0", *CALLS[0]),
        ("c1", *CALLS[1]),
    ]
    selected = model.get_tool_calls_from_response(last)
    assert [(each.tool_id, each.tool_name, each.tool_kwargs) for each in selected] == [
        ("c0", *CALLS[0]),
        ("c1", *CALLS[1]),
    ]


@pytest.mark.parametrize("asynchronous", [True, False])
def test_llamaindexs_older_parts_find_the_streamed_call(emulator, asynchronous):
    """Core's `process_streaming_objects` looks at `additional_kwargs` alone."""
    emulator.script(called(TOM))
    model = model_at(emulator)
    so_far = [
        process_streaming_objects(response, Cat, flexible_mode=True, llm=model)
        for response in streamed(model, asynchronous=asynchronous)
    ]
    assert so_far[-1].model_dump() == {"name": "Tom", "age": 3}
    assert any(found.model_dump() == {"name": "Tom", "age": None} for found in so_far)


def test_calls_that_stand_only_where_older_models_put_them_are_selected():
    """As in a response that was saved, or made by another model."""
    spec = {"id": "c1", "type": "function", "function": {"name": "get_time", "arguments": '{"zone": "CET"}'}}
    message = ChatMessage(role="assistant", content="", additional_kwargs={"tool_calls": [spec]})
    (selection,) = LlamaVision().get_tool_calls_from_response(ChatResponse(message=message))
    assert (selection.tool_id, selection.tool_name, selection.tool_kwargs) == ("c1", *CALLS[1])


@BOTH
@AT_EVERY_PROVIDER
def test_the_last_response_tells_what_was_used_in_a_plain_dict(emulator_of, provider, model_class):
    model = model_at(emulator_of(provider), provider, model_class)
    for endpoint in ENDPOINTS:
        last = call(model, endpoint)[-1]
        assert type(last.raw) is dict
        assert json.loads(json.dumps(last.raw)) == last.raw
        usage = last.raw["usage"]
        assert usage["prompt_tokens"] > 1000
        assert usage["completion_tokens"] > 0
        assert usage.items() <= last.additional_kwargs.items()


@BOTH
def test_what_was_given_is_not_changed(emulator, model_class):
    model = model_at(emulator, model_class=model_class, system_prompt="Be kind.")
    before = copy.deepcopy(MESSAGES)
    for endpoint in ENDPOINTS:
        call(model, endpoint)
    for ask in (model.chat_with_tools, model.stream_chat_with_tools):
        answer = ask(TOOLS, "The weather?", chat_history=MESSAGES, tool_required=True)
        assert answer if isinstance(answer, ChatResponse) else list(answer)
    assert before == MESSAGES
    assert len(emulator.requests) == 8 + 2


@BOTH
@pytest.mark.parametrize("endpoint", [endpoint for endpoint in ENDPOINTS if "complete" in endpoint])
def test_whether_a_prompt_is_formatted_is_no_option_of_the_provider(emulator, model_class, endpoint):
    model = model_at(emulator, model_class=model_class, completion_to_prompt="<{}>".format)

    async def acall(formatted):
        response = await getattr(model, endpoint)("Hi", formatted=formatted)
        return [item async for item in response] if "stream" in endpoint else [response]

    for formatted in (False, True):
        if endpoint.startswith("a"):
            asyncio.run(acall(formatted))
        else:
            list(getattr(model, endpoint)("Hi", formatted=formatted))
    assert [received.body["messages"][-1]["content"] for received in emulator.requests] == ["<Hi>", "Hi"]
    assert all("formatted" not in received.body for received in emulator.requests)


@BOTH
def test_a_saved_model_asks_the_same(emulator, model_class):
    model = model_at(
        emulator,
        model_class=model_class,
        system_prompt="Be kind.",
        temperature=0.5,
        additional_kwargs={"top_p": 0.9},
        image_format="jpeg",
        image_max_pixels=10_000,
    )
    others = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),  # noqa: S301 - our own bytes
        model_class.from_dict(model.to_dict()),
        model_class.from_json(model.to_json()),
        model_class(**model.model_dump()),
    ]
    assert [other.api_key is None for other in others] == [False, True, True, True, True]
    for other in (model, *others):
        assert type(other) is model_class
        other.api_key = model.api_key
        call(other, "chat")
    assert len({received.content for received in emulator.requests}) == 1
    assert len(emulator.requests) == 6


def test_the_two_classes_are_saved_under_names_of_their_own():
    assert LlamaVision.class_name() == "llama_vision_llm"
    assert LlamaVision().to_dict()["class_name"] == "llama_vision_llm"


@pytest.mark.usefixtures("own_loop")
@pytest.mark.parametrize(
    ("file", "name"), [(FILES[0], "red.jpg"), (IMAGE.read_bytes(), "circle.webp")], ids=["jpg", "webp"]
)
def test_a_wrong_label_does_not_come_through_a_template(emulator, tmp_path, file, name):
    path = tmp_path / name
    path.write_bytes(file)
    engine_over([ImageNode(image_path=str(path))], model_at(emulator)).query("What?")
    assert emulator.requests[0].image_urls[0].startswith("data:image/png;base64,")
    assert emulator.requests[0].images == [file]


@pytest.mark.usefixtures("own_loop")
def test_a_path_without_a_known_ending_needs_its_type_and_is_an_error_without(emulator, tmp_path):
    path = tmp_path / "red"
    path.write_bytes(FILES[0])
    engine_over([ImageNode(image_path=str(path), image_mimetype="image/png")], model_at(emulator)).query("?")
    assert seen(emulator) == [[0]]
    with pytest.raises(FileNotFoundError):  # LlamaIndex's own
        engine_over([ImageNode(image_path=str(path))], model_at(emulator)).query("?")
    assert len(emulator.requests) == 1


@pytest.mark.usefixtures("own_loop")
@pytest.mark.parametrize("mode", ["compact", "refine", "tree_summarize"])
def test_a_broken_image_is_an_error_and_no_empty_response(emulator, mode):
    """Core turns a `ValueError` into "Empty Response" here; ours are none."""
    node = ImageNode(image=in_base64(0)[:40], image_mimetype="image/png")
    with pytest.raises(ImageError, match="Image 1"):
        engine_over([node], model_at(emulator), ResponseMode(mode)).query("What?")
    assert emulator.requests == []


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_a_image_that_nobody_could_see_is_refused(emulator, role):
    message = ChatMessage(role=role, blocks=[TextBlock(text="Look:"), ImageBlock(path=IMAGE)])
    with pytest.raises(UnsupportedInputError):
        model_at(emulator).chat([message, ChatMessage(content="What is it?")])
    assert emulator.requests == []


def test_images_where_older_messages_have_them_are_shown(emulator):
    message = ChatMessage(
        content="What is it?",
        additional_kwargs={"images": [ImageBlock(image=FILES[1]), ImageDocument(image_path=str(IMAGE))]},
    )
    model_at(emulator).chat([message])
    assert emulator.requests[0].images == [FILES[1], IMAGE.read_bytes()]


def times_of(pieces):
    return [time.monotonic() for _ in pieces]


HELD_BACK = pytest.mark.skipif(
    metadata.version("llama-index-core") == "0.14.24", reason="this version holds the pieces back itself"
)


@pytest.mark.usefixtures("own_loop")
@pytest.mark.parametrize(
    "mode",
    [
        pytest.param("compact", marks=HELD_BACK),
        pytest.param("refine", marks=HELD_BACK),
        "tree_summarize",
        "simple_summarize",
        *MODES,
    ],
)
@pytest.mark.slow_beyond(1)
def test_the_first_words_are_there_before_the_last_are_made(emulator, paths, mode):
    first, *rest = chunks(completion("One two three."))
    emulator.script(event_stream(first, Wait(0.5), *rest, "[DONE]"))
    if mode in MODES:
        pieces = chat_engine(emulator, paths, mode).stream_chat("What?").response_gen
    else:
        nodes = nodes_of(paths[:1])
        pieces = (
            engine_over(nodes, model_at(emulator), ResponseMode(mode), streaming=True).query("?").response_gen
        )
    came = times_of(pieces)
    assert came[-1] - came[0] > 0.4
