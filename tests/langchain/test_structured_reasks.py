"""An answer that does not fit is asked for again, where that was agreed, and never without end."""

import json

import pytest
from langchain_core.exceptions import OutputParserException

from llama_vision.core.errors import ServerError
from tests.emulator import completion
from tests.langchain.weather import (
    GOOD,
    GOOD_TEXT,
    QUESTION,
    Weather,
    WeatherDict,
    ask,
    called,
    every_style,
    model_at,
    name_of,
    plain,
)

BAD = {
    "words": (completion("I can't."), "I can't.", "It is not JSON"),
    "a field missing": (called({"city": "Paris"}), '{"city": "Paris"}', "days"),
    "a field wrong": (called({"city": "Paris", "days": "few"}), '{"city": "Paris", "days": "few"}', "days"),
    "unreadable": (called('{"city": "Paris",, }'), '{"city": "Paris",, }', "not JSON"),
    "another tool": (completion(calls=[("Other", {})]), "{}", "Weather was not called"),
}


@every_style
@pytest.mark.parametrize("schema", [Weather, WeatherDict], ids=["pydantic", "TypedDict"])
@pytest.mark.parametrize(("bad", "said", "problem"), BAD.values(), ids=BAD)
def test_a_bad_answer_is_shown_and_asked_for_again(emulator, style, schema, bad, said, problem):
    runnable = model_at(emulator).with_structured_output(schema)
    emulator.script(_named(bad, name_of(runnable)), completion(calls=[(name_of(runnable), GOOD)]))
    assert plain(ask(runnable, style)) == GOOD
    first, second = (request.body for request in emulator.requests)
    question, answer, again = second["messages"]
    assert {**second, "messages": [question]} == first
    assert answer["role"] == "assistant"
    assert answer["content"].startswith(said)
    assert again["role"] == "user"
    assert problem.replace("Weather", name_of(runnable)) in again["content"]


def _named(reply, name):
    """Let the reply call the tool by the name that it has here."""
    return json.loads(json.dumps(reply).replace('"Weather"', json.dumps(name)))


@every_style
@pytest.mark.parametrize("provider", ["cloudflare", "aigateway", "aimlapi"])
def test_a_prompt_is_asked_again_until_it_fits(emulator_of, provider, style):
    emulator = emulator_of(provider)
    emulator.script(
        completion("Hm."), completion('{"city": 3}'), completion(f"Sure:\n```json\n{GOOD_TEXT}\n```")
    )
    assert ask(model_at(emulator, provider).with_structured_output(Weather), style) == Weather(**GOOD)
    contents = [message["content"] for message in emulator.requests[-1].body["messages"]]
    assert len(emulator.requests) == 3
    assert contents[1::2] == ["Hm.", '{"city": 3}']
    assert "It is not JSON" in contents[2]
    assert "city: Input should be a valid string\ndays: Field required" in contents[4]


def test_an_empty_answer_is_not_shown_to_the_model(emulator):
    emulator.script(completion(""), called(GOOD))
    model_at(emulator).with_structured_output(Weather).invoke(QUESTION)
    assert [message["role"] for message in emulator.requests[1].body["messages"]] == ["user", "user"]


def test_an_answer_in_words_of_a_model_that_ignores_tools_is_taken(emulator):
    emulator.script(completion(f"Here: {GOOD_TEXT}"))
    assert model_at(emulator).with_structured_output(Weather).invoke(QUESTION) == Weather(**GOOD)


@every_style
@pytest.mark.parametrize("method", ["auto", "prompt"])
def test_it_gives_up_after_two_more_questions(emulator, style, method):
    emulator.script(completion("No."), completion("Never."), completion('{"city": "Rome"}'))
    with pytest.raises(OutputParserException, match=r"does not fit Weather.*days: Field required") as caught:
        ask(model_at(emulator).with_structured_output(Weather, method=method), style)
    assert caught.value.llm_output == '{"city": "Rome"}'
    assert len(emulator.requests) == 3


@every_style
@pytest.mark.parametrize("method", ["function_calling", "json_schema", "json_mode"])
def test_a_method_that_was_chosen_sends_one_request(emulator, style, method):
    emulator.script(completion("No."))
    with pytest.raises(OutputParserException, match="Weather") as caught:
        ask(model_at(emulator).with_structured_output(Weather, method=method), style)
    assert caught.value.llm_output == "No."
    assert len(emulator.requests) == 1


@pytest.mark.parametrize("method", ["function_calling", "json_schema", "json_mode"])
def test_a_method_that_was_chosen_does_not_check_dictionaries(emulator, method):
    other = {"somewhere": "else"}
    runnable = model_at(emulator).with_structured_output(WeatherDict, method=method)
    emulator.script(
        completion(calls=[(name_of(runnable), other)])
        if method == "function_calling"
        else completion(json.dumps(other))
    )
    assert runnable.invoke(QUESTION) == other


@every_style
@pytest.mark.parametrize("include_raw", [False, True])
@pytest.mark.parametrize("method", ["auto", "function_calling", "json_schema", "prompt"])
def test_an_answer_that_was_cut_off_says_so_and_is_not_asked_for_again(emulator, style, include_raw, method):
    cut = GOOD_TEXT[:10]
    runnable = model_at(emulator).with_structured_output(Weather, method=method, include_raw=include_raw)
    emulator.script(
        completion(cut, finish_reason="length")
        if method in ("json_schema", "prompt")
        else called(cut, finish_reason="length")
    )
    if include_raw:
        error = ask(runnable, style)["parsing_error"]
    else:
        with pytest.raises(OutputParserException) as caught:
            ask(runnable, style)
        error = caught.value
    assert isinstance(error, OutputParserException)
    assert "raise max_tokens" in str(error)
    assert error.llm_output.startswith(cut)
    assert len(emulator.requests) == 1


def test_what_was_whole_before_the_cut_is_taken(emulator):
    emulator.script(completion(f"{GOOD_TEXT} I hope that", finish_reason="length"))
    runnable = model_at(emulator).with_structured_output(Weather, method="prompt")
    assert runnable.invoke(QUESTION) == Weather(**GOOD)


@every_style
def test_errors_of_the_provider_are_not_answers(emulator, style):
    emulator.script(emulator.refusal(500))
    with pytest.raises(ServerError):
        ask(model_at(emulator).with_structured_output(Weather, include_raw=True), style)
