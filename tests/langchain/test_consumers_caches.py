"""LangChain's caches keep whole answers, in memory and in a file."""

import sqlite3

import pytest
from langchain_core.caches import BaseCache, InMemoryCache
from langchain_core.load import dumps, loads

from tests.emulator import completion
from tests.langchain.weather import Weather, ask, model_at


class FileCache(BaseCache):
    """Keeps answers in SQLite as LangChain's own cache does there: as JSON."""

    def __init__(self, path):
        self._database = sqlite3.connect(path, check_same_thread=False)
        self._database.execute("CREATE TABLE answers (prompt, model, position, answer)")

    def lookup(self, prompt, llm_string):
        rows = self._database.execute(
            "SELECT answer FROM answers WHERE prompt = ? AND model = ? ORDER BY position",
            (prompt, llm_string),
        )
        return [loads(answer, allowed_objects="all") for (answer,) in rows] or None

    def update(self, prompt, llm_string, return_val):
        rows = [(prompt, llm_string, at, dumps(one)) for at, one in enumerate(return_val)]
        self._database.executemany("INSERT INTO answers VALUES (?, ?, ?, ?)", rows)

    def clear(self, **_):
        self._database.execute("DELETE FROM answers")

    def close(self):
        self._database.close()


@pytest.fixture(params=["memory", "file"])
def cache(request, tmp_path):
    if request.param == "memory":
        yield InMemoryCache()
        return
    kept = FileCache(tmp_path / "answers.db")
    yield kept
    kept.close()


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")  # LangChain says so of its own
@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_an_answer_is_kept_whole(emulator, cache, way):
    emulator.script(completion("Let me look.", calls=[("Weather", {"city": "Paris", "days": 3})]))
    model = model_at(emulator, cache=cache).bind_tools([Weather])
    first, again = ask(model, way), ask(model, way)
    assert len(emulator.requests) == 1
    assert (again.text, again.tool_calls) == (first.text, first.tool_calls)
    assert again.response_metadata == first.response_metadata
    of_langchain = {"total_cost": 0}  # a hit costs nothing
    assert again.usage_metadata == {**first.usage_metadata, **of_langchain}


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")  # as above
def test_another_question_or_other_tools_are_asked_anew(emulator, cache):
    model = model_at(emulator, cache=cache)
    for runnable, question in (
        (model, "Hi"),
        (model, "Ho"),
        (model.bind(temperature=0.5), "Hi"),
        (model.bind_tools([Weather]), "Hi"),
        (model, "Hi"),
    ):
        runnable.invoke(question)
    assert len(emulator.requests) == 4
