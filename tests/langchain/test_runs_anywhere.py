"""One instance, wherever its caller runs: event loops, threads, batches and forks; each call is one request."""

import asyncio
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cassette_cases import ROOT
from tests.emulator import Received, completion
from tests.langchain.weather import model_at

# The child drops its copies of the parent's sockets without closing them, which is not worth a word.
FORKED = ("-W", "ignore::ResourceWarning")


def echo(received: Received):
    """A right answer to one question is a wrong one to all others."""
    return completion(f"You said: {received.body['messages'][-1]['content']}")


@pytest.fixture
def model(emulator):
    emulator.always(echo)
    return model_at(emulator, max_retries=0)


def questions(number, name="q"):
    return [f"{name}-{at}" for at in range(number)]


def said_to(asked):
    return [f"You said: {question}" for question in asked]


async def ask_all_ways(model, question):
    """Ask in five styles, of which the last is two questions at a time; give the six answers."""
    whole = await model.ainvoke(question)
    streamed = [chunk async for chunk in model.astream(question)]
    events = await model.astream_events(question, version="v3")
    output = await events.output
    told = [event async for event in model.astream_events(question, version="v2")]
    several = await model.abatch([question, question])
    return [
        whole.text,
        "".join(chunk.text for chunk in streamed),
        output.text,
        told[-1]["data"]["output"].text,
        *(message.text for message in several),
    ]


def ask_in_own_loop(model, question):
    return asyncio.run(ask_all_ways(model, question))


pytestmark = pytest.mark.filterwarnings("ignore:.*beta")  # LangChain says so of its own third version


def test_in_four_event_loops_one_after_the_other(emulator, model):
    for question in questions(4):
        assert ask_in_own_loop(model, question) == said_to([question] * 6)
    assert len(emulator.requests) == 4 * 6


def test_in_four_threads_each_with_event_loops_of_its_own(emulator, model):
    def work(name):
        return [ask_in_own_loop(model, question) for question in questions(3, name)]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, "abcd"))
    assert found == [[said_to([question] * 6) for question in questions(3, name)] for name in "abcd"]
    assert len(emulator.requests) == 4 * 3 * 6


def test_in_four_threads_without_an_event_loop(emulator, model):
    def work(name):
        whole = [model.invoke(question).text for question in questions(5, name)]
        streamed = [
            "".join(chunk.text for chunk in model.stream(question)) for question in questions(5, name)
        ]
        return whole, streamed

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, "abcd"))
    assert found == [(said_to(questions(5, name)),) * 2 for name in "abcd"]
    assert len(emulator.requests) == 4 * 5 * 2


@pytest.mark.parametrize("at_once", [1, 4, 20])
async def test_twenty_questions_with_few_at_a_time(emulator, model, at_once):
    asked = questions(20)
    answers = await model.abatch(asked, {"max_concurrency": at_once})
    assert [answer.text for answer in answers] == said_to(asked)
    assert sorted(received.body["messages"][-1]["content"] for received in emulator.requests) == sorted(asked)
    assert emulator.connections <= at_once


def test_twenty_questions_in_threads_of_a_batch(emulator, model):
    asked = questions(20)
    answers = model.batch(asked, {"max_concurrency": 5})
    assert [answer.text for answer in answers] == said_to(asked)
    assert len(emulator.requests) == 20
    assert emulator.connections <= 5


async def test_batches_as_they_are_done(emulator, model):
    asked = questions(8)
    found = {at: answer.text async for at, answer in model.abatch_as_completed(asked)}
    assert [found[at] for at in range(8)] == said_to(asked)
    assert len(emulator.requests) == 8


async def test_calls_that_wait_inside_of_a_running_loop(emulator, model):
    """As in a notebook, where a loop runs already."""
    assert model.invoke("outside").text == "You said: outside"
    assert "".join(chunk.text for chunk in model.stream("streamed")) == "You said: streamed"
    assert (await model.ainvoke("inside")).text == "You said: inside"
    assert await asyncio.to_thread(ask_in_own_loop, model, "beside") == said_to(["beside"] * 6)
    assert len(emulator.requests) == 9


def run_alone(emulator, script, *options):
    """Run a script in a Python of its own, in which warnings are errors, and where nothing may be said in the end."""
    prepared = """
        import asyncio, os
        from concurrent.futures import ThreadPoolExecutor
        from llama_vision.langchain import ChatLlamaVision

        def said_to(asked):
            return [f"You said: {question}" for question in asked]

        model = ChatLlamaVision(
            provider="deepinfra", base_url=os.environ["EMULATOR"], api_key=os.environ["EMULATOR_KEY"], max_retries=0
        )
    """
    finished = subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", textwrap.dedent(prepared) + textwrap.dedent(script)],
        cwd=ROOT,
        env={**os.environ, "EMULATOR": emulator.base_url, "EMULATOR_KEY": emulator.api_key},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.stderr == ""
    assert finished.returncode == 0


@pytest.mark.slow
def test_it_ends_without_a_word(emulator):
    """Loops, threads and batches one after the other, nothing is closed, and a stream is left in its middle."""
    emulator.always(echo)
    run_alone(
        emulator,
        """
        assert [message.text for message in model.batch(["a", "b"])] == said_to(["a", "b"])
        for _ in range(4):
            assert [m.text for m in asyncio.run(model.abatch(["a"] * 5, {"max_concurrency": 2}))] == said_to(["a"] * 5)
        with ThreadPoolExecutor(4) as pool:
            assert [m.text for m in pool.map(model.invoke, "abcd")] == said_to("abcd")
        left = model.stream("a")
        next(left)
        """,
    )
    assert len(emulator.requests) == 2 + 20 + 4 + 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.slow
def test_it_works_on_both_sides_of_a_fork(emulator):
    emulator.always(echo)
    run_alone(
        emulator,
        """
        def all_ways(name):
            assert model.invoke(name).text == f"You said: {name}"
            assert "".join(chunk.text for chunk in model.stream(name)) == f"You said: {name}"
            assert asyncio.run(model.ainvoke(name)).text == f"You said: {name}"
            assert [m.text for m in model.batch([name, "b"])] == said_to([name, "b"])

        all_ways("before")
        child = os.fork()
        all_ways("parent" if child else "child")
        if child:
            assert os.waitpid(child, 0)[1] == 0
            all_ways("after")
        """,
        *FORKED,
    )
    assert len(emulator.requests) == 4 * 5
