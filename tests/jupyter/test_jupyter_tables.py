"""Providers and answers in tables, on a terminal."""

import pytest

from llama_vision import PROVIDERS, Reply, Usage
from llama_vision.jupyter import DisplayedReply, Table, show_answers, show_providers


@pytest.fixture(autouse=True)
def without_keys(monkeypatch):
    for provider in PROVIDERS.values():
        for name in provider.key_env:
            monkeypatch.delenv(name, raising=False)


def row_of(text, name):
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return line


def test_every_provider_has_a_row(capsys, monkeypatch):
    monkeypatch.setenv("DEEPINFRA_API_KEY", "very secret")
    monkeypatch.setenv("GROQ_API_KEY", " ")
    show_providers()
    text = capsys.readouterr().out
    assert row_of(text, "deepinfra").endswith("found in DEEPINFRA_API_KEY")
    assert row_of(text, "groq").endswith("none found in GROQ_API_KEY")
    assert row_of(text, "vllm").endswith("none needed")
    assert row_of(text, "openai-compatible").endswith("none found in LLAMA_VISION_API_KEY, if it wants one")
    assert len(text.splitlines()) == 1 + len(PROVIDERS)
    assert "secret" not in text


def test_models_that_may_no_longer_answer_are_marked(capsys):
    show_providers()
    text = capsys.readouterr().out
    column = text.splitlines()[0].index("may no longer answer")
    marked = {line.split()[0] for line in text.splitlines()[1:] if line[column:].startswith("llama-3.2-")}
    retired = [
        name for name, provider in PROVIDERS.items() if any(model.deprecation for model in provider.models)
    ]
    assert marked == set(retired)
    assert "azure" in marked
    assert "deepinfra" not in marked


def test_answers_and_failures_stand_below_each_other(capsys):
    answers = {
        "a": DisplayedReply(Reply("Blue.", usage=Usage(1_620, 2, None, 0.000081, True)), 0.333, 0.1),
        "local": DisplayedReply(Reply("It is\nblue.", usage=Usage())),
        "c": ConnectionError("<gone>"),
    }
    show_answers(answers)
    assert capsys.readouterr().out.splitlines() == [
        "who    answer                   tokens in  tokens out  seconds  first token                cost",
        "a      Blue.                        1,620           2     0.33         0.10  about 0.000081 USD",
        "local  It is blue.                                                                cost not told",
        "c      ConnectionError: <gone>",
    ]


def test_long_cells_are_cut_on_a_terminal_only():
    table = Table(["a", "b"], [["x" * 100, "\x1b"]])
    assert repr(table).splitlines()[1] == "x" * 57 + "...  \\x1b"
    assert "x" * 100 in table._repr_html_()


def test_no_key_is_in_the_html(monkeypatch):
    monkeypatch.setenv("DEEPINFRA_API_KEY", "very secret")
    assert "secret" not in PROVIDERS["deepinfra"]._repr_html_()
