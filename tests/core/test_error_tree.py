"""The tree of errors is the one drawn at the top of its file, and errors travel whole."""

import pickle
import re

import pytest

from llama_vision.core import errors
from llama_vision.core.errors import LlamaVisionError, RateLimitError, StatusError, TruncatedStreamError
from llama_vision.core.reply import Reply

_LINE = re.compile(r"^(?P<indent> *)(?P<name>\w+Error)\s+(?P<star>\*?)")


def drawn_tree():
    """Read the docstring: every error with its parent and whether it is marked."""
    tree, path = {}, []
    for line in errors.__doc__.splitlines():
        if match := _LINE.match(line):
            depth = len(match["indent"]) // 2
            path[depth:] = [match["name"]]
            tree[match["name"]] = (path[depth - 1] if depth else "Exception", match["star"] == "*")
    return tree


def real_classes():
    return [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, LlamaVisionError)
    ]


def test_the_drawn_tree_is_the_real_one():
    real = {kind.__name__: (kind.__bases__[0].__name__, kind.retryable) for kind in real_classes()}
    assert drawn_tree() == real


def test_the_drawing_is_read_at_all():
    tree = drawn_tree()
    assert tree["LlamaVisionError"] == ("Exception", False)
    assert tree["RateLimitError"] == ("StatusError", True)
    assert tree["ContextTooLongError"] == ("InvalidRequestError", False)


@pytest.mark.parametrize("kind", real_classes(), ids=lambda kind: kind.__name__)
def test_every_error_survives_pickling_with_all_it_knows(kind):
    error = kind("what happened").with_context("deepinfra", "llama")
    error.partial = Reply(text="half an ans")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copy) is kind
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_a_status_errors_facts_survive_pickling():
    error = RateLimitError("slow down")
    error.status_code, error.body, error.request_id, error.retry_after = 429, "{}", "req-1", 2.5
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (copy.status_code, copy.body, copy.request_id, copy.retry_after) == (429, "{}", "req-1", 2.5)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (("deepinfra",), "it broke [deepinfra]"),
        (("deepinfra", "llama"), "it broke [deepinfra, llama]"),
    ],
)
def test_the_text_says_where_it_happened(place, text):
    assert str(LlamaVisionError("it broke").with_context(*place)) == text


def test_the_text_stands_alone_while_the_place_is_unknown():
    assert str(LlamaVisionError("it broke")) == "it broke"


def test_the_place_said_first_stays():
    error = LlamaVisionError("it broke").with_context("inner", "model").with_context("outer", "other")
    assert (error.provider, error.model) == ("inner", "model")


def test_a_place_can_be_completed():
    error = LlamaVisionError("it broke").with_context("deepinfra").with_context("other", "llama")
    assert (error.provider, error.model) == ("deepinfra", "llama")


def test_an_error_says_as_much_as_nothing_until_it_is_told():
    error = StatusError("it broke")
    assert (error.status_code, error.body, error.request_id, error.retry_after) == (0, "", None, None)
    assert TruncatedStreamError("it broke").partial is None
