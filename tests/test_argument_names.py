"""Arguments under the names that other classes have for them: every row of the table in docs/migration.md, with both classes."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision

PAGE = Path(__file__).parents[1] / "docs" / "migration.md"
CLASSES = [ChatLlamaVision, LlamaVision]
_CODE = re.compile(r"`([^`]+)`")


def rows():
    """The rows of the table: each argument there, with what stands beside it."""
    section = PAGE.read_text().split("## Arguments that have another name")[1].split("\n## ")[0]
    for line in section.splitlines():
        if line.startswith("| `"):
            there, here = line.strip("| ").split(" | ")
            yield from ((argument, here) for argument in _CODE.findall(there))


ROWS = list(rows())
TAKEN = [row for row in ROWS if not row[1].startswith("refused")]
REFUSED = [row for row in ROWS if row[1].startswith("refused")]


def make(kind, arguments):
    return kind(**eval(f"dict({arguments})"))  # noqa: S307 - of our own page


def test_the_table_is_read():
    assert len(TAKEN) > 15
    assert len(REFUSED) > 15


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(("argument", "here"), TAKEN)
def test_what_means_the_same_is_taken(kind, argument, here):
    same = "" if here.startswith("nothing") else _CODE.findall(here)[0]
    assert make(kind, argument).model_dump() == make(kind, same).model_dump()


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(("argument", "here"), REFUSED)
def test_of_the_rest_the_error_says_what_to_write(kind, argument, here):
    with pytest.raises(ValidationError) as caught:
        make(kind, argument)
    text = str(caught.value)
    assert argument.partition("=")[0] in text
    assert [word for word in _CODE.findall(here) if word not in text] == []
    assert "pydantic.dev" not in text


@pytest.mark.parametrize("kind", CLASSES)
def test_two_spellings_that_differ_are_refused(kind):
    with pytest.raises(ValidationError, match="max_tokens and max_new_tokens are the same here"):
        kind(max_tokens=5, max_new_tokens=6)
    assert kind(max_tokens=5, max_new_tokens=5).max_tokens == 5


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(("wrong", "right"), [("temprature", "temperature"), ("apikey", "api_key")])
def test_a_mistyped_argument_is_told_the_right_one(kind, wrong, right):
    with pytest.raises(ValidationError, match=f"no argument {wrong}. Did you mean {right}") as caught:
        kind(**{wrong: "sk-secret"})
    assert "sk-secret" not in str(caught.value)


def test_an_unknown_argument_may_be_a_field_of_the_providers():
    with pytest.raises(ValidationError, match=r"extra_body=\{'safe_mode'"):
        ChatLlamaVision(safe_mode=True)
    with pytest.raises(ValidationError, match=r"additional_kwargs=\{'safe_mode'"):
        LlamaVision(safe_mode=True)


def test_fields_of_the_providers_own_go_out(emulator):
    options = {"model_kwargs": {"top_p": 0.5, "safe_mode": True}, "api_key": emulator.api_key}
    ChatLlamaVision(base_url=emulator.base_url, **options).invoke("Hi")
    LlamaVision(base_url=emulator.base_url, **options).complete("Hi")
    for request in emulator.requests:
        assert (request.body["top_p"], request.body["safe_mode"]) == (0.5, True)
        assert "model_kwargs" not in request.body


def test_options_of_calls_are_arguments_of_a_llamaindex_model():
    model = LlamaVision(top_p=0.5, stop="END", seed=7, additional_kwargs={"min_p": 0.1})
    assert model.additional_kwargs == {"top_p": 0.5, "stop": "END", "seed": 7, "min_p": 0.1}


def test_what_llamaindex_plans_with_can_be_overridden():
    metadata = LlamaVision(context_window=4096, is_function_calling_model=False).metadata
    assert (metadata.context_window, metadata.is_function_calling_model) == (4096, False)
    assert LlamaVision().metadata.is_function_calling_model
    with pytest.raises(ValidationError, match="context_window"):
        LlamaVision(context_window=0)
