"""What gives objects is a runnable like any other; and unusual forms."""

import asyncio
import copy
import json
import pickle
from datetime import date
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import OutputParserException
from langchain_core.load import dumps
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.utils.function_calling import convert_to_json_schema
from pydantic import BaseModel, ConfigDict, RootModel

from llama_vision.core.errors import UnsupportedInputError
from tests.emulator import completion
from tests.langchain.weather import GOOD, GOOD_TEXT, QUESTION, Weather, called, every_schema, model_at


class Listener(BaseCallbackHandler):
    """Notes every run."""

    def __init__(self):
        self.chains, self.models, self.options, self.tags, self.errors = [], [], [], [], []

    def on_chain_start(self, serialized, inputs, *, name=None, **kwargs):
        self.chains.append(name)

    def on_chat_model_start(self, serialized, messages, *, parent_run_id=None, tags=None, **kwargs):
        self.models.append(parent_run_id)
        self.tags.append(tags)
        self.options.append(kwargs["options"])

    def on_chain_error(self, error, **kwargs):
        self.errors.append(error)


def test_it_goes_into_chains_with_names_tags_and_callbacks(emulator):
    listener = Listener()
    chain = ChatPromptTemplate.from_template("The weather in {place}?") | model_at(
        emulator
    ).with_structured_output(Weather)
    emulator.script(called({}), called(GOOD), called(GOOD))
    config = {"callbacks": [listener], "tags": ["blue"], "run_name": "my chain"}
    assert chain.invoke({"place": "Paris"}, config) == Weather(**GOOD)
    assert list(chain.stream({"place": "Rome"}, config))[-1] == Weather(**GOOD)
    assert listener.chains[0] == "my chain"
    assert listener.chains.count("StructuredOutput") == 2
    assert len(listener.models) == 3  # each question to the model is seen
    assert len(set(listener.models[:2])) == 1
    assert all("blue" in tags for tags in listener.tags)
    assert [request.body["messages"][0]["content"] for request in emulator.requests] == [
        "The weather in Paris?",
        "The weather in Paris?",
        "The weather in Rome?",
    ]


@every_schema
@pytest.mark.parametrize("method", ["auto", "function_calling", "json_schema", "json_mode", "prompt"])
def test_traces_show_the_schema(emulator, method, schema):
    listener = Listener()
    runnable = model_at(emulator).with_structured_output(schema, method=method, include_raw=True)
    runnable.invoke(QUESTION, {"callbacks": [listener]})
    shown = listener.options[0]["ls_structured_output_format"]
    assert shown["schema"] == convert_to_json_schema(runnable.schema)
    assert shown["kwargs"]["method"] == runnable.plan.method


def test_a_failure_is_seen_by_the_callbacks(emulator):
    listener = Listener()
    emulator.script(completion("No."))
    runnable = model_at(emulator).with_structured_output(Weather, method="json_schema")
    with pytest.raises(OutputParserException):
        runnable.invoke(QUESTION, {"callbacks": [listener]})
    assert [type(error) for error in listener.errors] == [OutputParserException]


def test_it_can_be_retried_bound_and_replaced(emulator):
    runnable = model_at(emulator).with_structured_output(Weather, method="json_schema")
    emulator.script(completion("No."), completion(GOOD_TEXT))
    retrying = runnable.with_retry(
        retry_if_exception_type=(OutputParserException,), wait_exponential_jitter=False
    )
    assert retrying.invoke(QUESTION) == Weather(**GOOD)
    emulator.script(completion("No."), called(GOOD))
    other = model_at(emulator).with_structured_output(Weather)
    assert runnable.with_fallbacks([other]).invoke(QUESTION) == Weather(**GOOD)
    emulator.script(completion(GOOD_TEXT))
    assert runnable.bind(temperature=0.1).invoke(QUESTION) == Weather(**GOOD)
    assert emulator.requests[-1].body["temperature"] == 0.1


def test_each_of_a_batch_is_asked_again_on_its_own(emulator):
    def answer(received):
        fits = len(received.body["messages"]) > 1 or "Rome" in received.body["messages"][0]["content"]
        return called({"city": "Rome", "days": 1} if fits else {})

    emulator.always(answer)
    runnable = model_at(emulator).with_structured_output(Weather)
    questions = ["Rome?", "Paris?", "Oslo?"]
    for answers in (runnable.batch(questions), asyncio.run(runnable.abatch(questions))):
        assert answers == [Weather(city="Rome", days=1)] * 3
    assert len(emulator.requests) == 10


@pytest.mark.filterwarnings("ignore:.*beta")  # LangChain says so of its own
async def test_its_events_show_the_model_and_the_object(emulator):
    emulator.script(called({}), called(GOOD))
    runnable = model_at(emulator).with_structured_output(Weather)
    events = [event async for event in runnable.astream_events([("human", QUESTION)], version="v2")]
    assert [event["event"] for event in events].count("on_chat_model_start") == 2
    assert (events[-1]["event"], events[-1]["data"]["output"]) == ("on_chain_end", Weather(**GOOD))


def test_it_can_be_shown_and_copied(emulator):
    emulator.script(called(GOOD))
    runnable = model_at(emulator).with_structured_output(Weather)
    assert "StructuredOutputRunnable" in dumps(runnable | len)
    assert copy.deepcopy(runnable).invoke(QUESTION) == Weather(**GOOD)
    assert pickle.loads(pickle.dumps(runnable)).plan == runnable.plan  # noqa: S301 - our own bytes
    assert "StructuredOutput" in runnable.get_graph().draw_mermaid()


def test_types_tell_what_goes_in_and_comes_out(emulator):
    runnable = model_at(emulator).with_structured_output(Weather)
    assert runnable.OutputType is Weather
    assert runnable.get_output_jsonschema()["title"] == "Weather"
    assert runnable.InputType == model_at(emulator).InputType
    assert runnable.config_specs == []
    raw = model_at(emulator).with_structured_output(Weather, include_raw=True)
    assert raw.OutputType == dict[str, Any]


async def test_many_at_once_keep_apart(emulator):
    def answer(received):
        city = received.body["messages"][0]["content"]
        return called({"city": city, "days": 1} if len(received.body["messages"]) > 1 else {"city": city})

    emulator.always(answer)
    runnable = model_at(emulator).with_structured_output(Weather)
    answers = await asyncio.gather(*(runnable.ainvoke(f"city {number}") for number in range(20)))
    assert [answer.city for answer in answers] == [f"city {number}" for number in range(20)]


def test_lists_are_asked_for_in_words_where_only_tools_could_be_had(emulator):
    class Cities(RootModel[list[str]]):
        """Cities."""

    emulator.script(completion('["Paris", "Rome"]'), completion("[1, 2]"))
    model = model_at(emulator)
    assert model.with_structured_output(Cities).invoke("Which?").root == ["Paris", "Rome"]
    numbers = {"type": "array", "items": {"type": "integer"}}
    assert model.with_structured_output(numbers).invoke("Which?") == [1, 2]
    assert not any("tools" in request.body for request in emulator.requests)


@pytest.mark.parametrize("method", ["json_schema", "json_mode", "prompt"])
@pytest.mark.parametrize("streamed", [False, True])
def test_an_object_that_looks_like_a_call_is_an_object(emulator, method, streamed):
    class Function(BaseModel):
        name: str
        parameters: dict[str, int]

    whole = {"name": "get_weather", "parameters": {"days": 3}}
    emulator.script(completion(json.dumps(whole)))
    runnable = model_at(emulator).with_structured_output(Function, method=method)
    answer = list(runnable.stream(QUESTION))[-1] if streamed else runnable.invoke(QUESTION)
    assert answer == Function(**whole)


def test_strict_classes_read_json_as_json(emulator):
    class Day(BaseModel):
        model_config = ConfigDict(strict=True)
        when: date
        places: tuple[str, ...]

    emulator.script(completion(calls=[("Day", {"when": "2026-11-20", "places": ["Rome"]})]))
    answer = model_at(emulator).with_structured_output(Day).invoke("When?")
    assert answer == Day(when=date(2026, 11, 20), places=("Rome",))


@pytest.mark.parametrize("depth", [900, 100_000])
def test_an_answer_nested_too_deeply_is_one_that_does_not_fit(emulator, depth):
    deep = '{"city": ' * depth + "1" + "}" * depth
    schema = {"title": "Deep", "type": "object", "properties": {"city": {"$ref": "#"}}, "required": ["city"]}
    emulator.script(completion(deep))
    runnable = model_at(emulator).with_structured_output(Weather, method="json_schema")
    with pytest.raises(OutputParserException):
        runnable.invoke(QUESTION)
    emulator.script(*[completion(deep)] * 3)
    with pytest.raises(OutputParserException):
        model_at(emulator).with_structured_output(schema, method="prompt").invoke(QUESTION)


@pytest.mark.parametrize("method", ["auto", "function_calling", "json_schema", "json_mode", "prompt"])
@pytest.mark.parametrize("option", ["tools", "response_format"])
def test_what_structured_output_sets_by_itself_is_refused_by_name(emulator, method, option):
    with pytest.raises(UnsupportedInputError, match=f"sets {option} by itself"):
        model_at(emulator).with_structured_output(Weather, method=method, **{option: [Weather]})
