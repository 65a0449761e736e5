"""Tool calls that a model writes as text arrive as tool calls, at every provider, through both adapters, in every style."""

from dataclasses import replace

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from llama_index.core.base.llms.types import ChatMessage

from llama_vision.core.errors import TruncatedStreamError
from llama_vision.llamaindex import LlamaVision, ToolArgumentsError
from tests.contract.text_replies import (
    CODE,
    LEAKED,
    OFFERED,
    PARIS,
    PARIS_TEXT,
    ROME,
    ROME_TEXT,
    TIME,
    WORDS,
    letters,
    openai_calls,
    with_read_arguments,
)
from tests.emulator import HANG_UP, completion

ASKED = "What is the weather in Rome?"
BEGINS = '{"name": "get_weather", "parameters": {"city": "Rome", "days": 1'


def offered(form):
    return [*OFFERED, CODE] if form == "code" else OFFERED


def check_calls(answer, calls):
    """Compare the calls, and look at all that an adapter tells of them."""
    assert answer.calls == calls
    assert answer.end == "tool_calls"
    assert len(set(answer.call_ids)) == len(calls)
    assert all(call_id and isinstance(call_id, str) for call_id in answer.call_ids)
    if isinstance(answer.raw, AIMessage):
        assert answer.raw.invalid_tool_calls == []
        return
    told = answer.raw.message.additional_kwargs["tool_calls"]
    assert with_read_arguments(told) == openai_calls(calls, answer.call_ids)
    selected = LlamaVision(provider="local").get_tool_calls_from_response(answer.raw)
    assert [(each.tool_id, each.tool_name, each.tool_kwargs) for each in selected] == [
        (call_id, *call) for call_id, call in zip(answer.call_ids, calls, strict=True)
    ]


@pytest.mark.parametrize("form", LEAKED)
def test_a_call_in_the_words_is_a_call(subject, form):
    text, calls = LEAKED[form]
    subject.emulator.script(completion(text))
    answer = subject.ask(ASKED, tools=offered(form))
    check_calls(answer, calls)
    assert "".join(answer.deltas) == answer.text == ""


@pytest.mark.parametrize("form", LEAKED)
@pytest.mark.parametrize("style", ["stream"])
def test_it_may_come_letter_by_letter(subject, form):
    text, calls = LEAKED[form]
    subject.emulator.script(letters(f" \n{text}"))
    answer = subject.ask(ASKED, tools=offered(form))
    check_calls(answer, calls)
    assert "".join(answer.deltas) == answer.text == ""


@pytest.mark.parametrize("form", WORDS)
def test_what_only_looks_like_a_call_stays_as_it_is(subject, form):
    text = WORDS[form]
    subject.emulator.script(letters(text) if subject.style == "stream" else completion(text))
    answer = subject.ask(ASKED, tools=OFFERED)
    assert "".join(answer.deltas) == answer.text == text
    assert (answer.calls, answer.end) == ([], "stop")


def test_the_words_around_a_call_are_kept(subject):
    subject.emulator.script(completion(f"I shall look:\n\n{ROME_TEXT}\n\nOne moment."))
    answer = subject.ask(ASKED, tools=OFFERED)
    check_calls(answer, [ROME])
    assert "".join(answer.deltas) == answer.text == "I shall look:\n\n\n\nOne moment."


UNREAD = {
    "switched off": {"tools": OFFERED, "text_tool_calls": False},
    "forbidden": {"tools": OFFERED, "tool_choice": "none"},
    "nothing is offered": {},
}


@pytest.mark.parametrize("why", UNREAD)
@pytest.mark.parametrize("form", ["parameters", "tag and pythonic"])
def test_where_no_call_is_looked_for_words_are_words(subject, why, form):
    if why == "switched off":
        subject.need("tools")
    text, _ = LEAKED[form]
    subject.emulator.script(completion(text))
    answer = subject.ask(ASKED, **UNREAD[why])
    assert "".join(answer.deltas) == answer.text == text
    assert (answer.calls, answer.end) == ([], "stop")


def test_calls_of_both_kinds_come_together_and_none_twice(subject):
    """Some servers report the calls that they find in the words, and leave them there."""
    subject.emulator.script(completion(f"{ROME_TEXT}; {PARIS_TEXT}", calls=[ROME, TIME]))
    answer = subject.ask(ASKED, tools=OFFERED)
    check_calls(answer, [ROME, PARIS, TIME])
    assert answer.text == ""


def test_a_call_beside_words_that_look_like_another(subject):
    subject.emulator.script(completion(WORDS["an unoffered name"], calls=[ROME]))
    answer = subject.ask(ASKED, tools=OFFERED)
    check_calls(answer, [ROME])
    assert answer.text == WORDS["an unoffered name"]


def cut_off(text):
    """A reply that ended at max_tokens=5; Cloudflare's native route says so with its count alone."""
    return completion(text, finish_reason="length", usage={"prompt_tokens": 9, "completion_tokens": 5})


def check_cut(answer, *, calls=()):
    """A call that is not whole is among those that can't be used, and nowhere else."""
    assert answer.end == "length"
    fragment = '{"city": "Rome", "days": 1'
    if isinstance(answer.raw, AIMessage):
        assert answer.calls == list(calls)
        (invalid,) = answer.raw.invalid_tool_calls
        assert invalid["name"] == "get_weather"
        assert invalid["id"]
        assert invalid["args"].startswith(fragment)
        return
    *whole, (name, arguments) = answer.calls
    assert (whole, name, arguments) == (list(calls), "get_weather", fragment)
    with pytest.raises(ToolArgumentsError, match=r"get_weather.*raise max_tokens"):
        LlamaVision(provider="local").get_tool_calls_from_response(answer.raw)


@pytest.mark.parametrize("before", ["", "I look. "])
def test_a_call_that_was_cut_off_is_words_and_no_call(subject, before):
    subject.emulator.script(cut_off(before + BEGINS))
    answer = subject.ask(ASKED, tools=OFFERED, max_tokens=5)
    check_cut(answer)
    assert "".join(answer.deltas) == answer.text == f"{before}{BEGINS}"


def test_the_calls_before_one_that_was_cut_off_are_calls(subject):
    subject.emulator.script(cut_off(f"{PARIS_TEXT}; {BEGINS}"))
    answer = subject.ask(ASKED, tools=OFFERED, max_tokens=5)
    check_cut(answer, calls=[PARIS])
    assert "".join(answer.deltas) == answer.text
    assert answer.text.endswith(BEGINS)


def test_a_name_alone_that_was_cut_off_is_words(subject):
    text = '{"name": "get_weather", "par'
    subject.emulator.script(cut_off(text))
    answer = subject.ask(ASKED, tools=OFFERED, max_tokens=5)
    assert (answer.text, answer.calls, answer.end) == (text, [], "length")
    assert not getattr(answer.raw, "invalid_tool_calls", [])


def test_a_whole_call_counts_where_the_reply_was_cut_behind_it(subject):
    subject.emulator.script(cut_off(ROME_TEXT))
    answer = subject.ask(ASKED, tools=OFFERED, max_tokens=5)
    assert (answer.text, answer.calls, answer.end) == ("", [ROME], "length")


def test_code_that_was_cut_off_is_never_run(subject):
    subject.emulator.script(cut_off("<|python_tag|>print(1); import os; os.remo"))
    answer = subject.ask(ASKED, tools=[CODE], max_tokens=5)
    assert answer.text == "<|python_tag|>print(1); import os; os.remo"
    if isinstance(answer.raw, AIMessage):
        assert answer.calls == []
    else:
        assert all(isinstance(arguments, str) for _, arguments in answer.calls)


def test_a_conversation_with_a_call_that_was_cut_off_goes_on(subject):
    subject.emulator.script(cut_off(BEGINS), completion("Sunny."))
    said = subject.ask(ASKED, tools=OFFERED, max_tokens=5).raw
    said = said if isinstance(said, AIMessage) else said.message
    assert subject.ask(ASKED, said, "Go on.", tools=OFFERED).text == "Sunny."
    _, sent, _ = subject.emulator.requests[1].body["messages"]
    assert sent["content"].startswith(BEGINS)
    assert "tool_calls" not in sent


@pytest.mark.parametrize("style", ["stream", "astream"])
@pytest.mark.parametrize("before", ["", "I look: "])
@pytest.mark.parametrize("held", ['{"name": "get_weather", "para', BEGINS])
def test_a_stream_that_breaks_in_a_call_gives_up_what_was_held(subject, before, held):
    def cut(received):
        whole = letters(before + held)(received)
        return replace(whole, steps=(*whole.steps[:-2], HANG_UP))

    subject.emulator.script(cut)
    with pytest.raises(TruncatedStreamError) as caught:
        subject.ask(ASKED, tools=OFFERED, max_retries=0)
    assert caught.value.partial.text == before + held
    assert caught.value.partial.finish_reason is None
    for call in caught.value.partial.tool_calls:
        with pytest.raises(ValueError, match=r"arguments|delimiter|double quotes"):
            call.parsed()


@pytest.mark.parametrize("form", ["parameters", "pythonic", "a call of a method", "the same twice"])
def test_the_made_ids_lead_results_back(subject, form):
    """The framework's own message goes back, with results that name its ids, past a server that checks them."""
    text, calls = LEAKED[form]
    subject.emulator.script(completion(text), completion("Sunny."))
    answer = subject.ask(ASKED, tools=OFFERED)
    results = [f"result {number}" for number, _ in enumerate(calls)]
    told = zip(answer.call_ids, results, strict=True)
    if isinstance(answer.raw, AIMessage):
        history = [answer.raw, *(ToolMessage(result, tool_call_id=call_id) for call_id, result in told)]
    else:
        history = [
            answer.raw.message,
            *(
                ChatMessage(role="tool", content=result, additional_kwargs={"tool_call_id": call_id})
                for call_id, result in told
            ),
        ]
    assert subject.ask(ASKED, *history, tools=OFFERED).text == "Sunny."
    _, said, *sent = subject.emulator.requests[1].body["messages"]
    if "tool_calls" in said:
        assert with_read_arguments(said["tool_calls"]) == openai_calls(calls, answer.call_ids)
        assert [message["tool_call_id"] for message in sent] == answer.call_ids
        assert [message["content"] for message in sent] == results
    else:
        assert said["role"] == "assistant"
        assert all(f'"name": "{name}"' in said["content"] for name, _ in calls)
        assert all(result in str(sent) for result in results)
