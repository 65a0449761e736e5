"""A model keeps the backend of its last call for the next one, for as long as nothing has changed."""

import copy
import pickle

import pytest

from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision

CHANGES = {
    "a field": lambda model: setattr(model, "timeout", 3.0),
    "a header, in place": lambda model: model.default_headers.update({"x-team": "b"}),
    "a host, in place": lambda model: model.image_allowed_hosts.append("example.org"),
}


@pytest.fixture(params=[ChatLlamaVision, LlamaVision])
def model(request):
    return request.param(
        provider="deepinfra",
        api_key="k",
        default_headers={"x-team": "a"},
        image_allowed_hosts=["example.com"],
    )


def test_it_is_made_once(model):
    assert model._backend() is model._backend()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_changed_counts_at_once(model, change):
    before = model._backend()
    change(model)
    assert model._backend() is not before
    assert model._backend() is model._backend()


def test_so_does_the_environment(monkeypatch):
    model = ChatLlamaVision(provider="ollama")
    before = model._backend()
    monkeypatch.setenv("OLLAMA_HOST", "elsewhere:1234")
    assert "elsewhere:1234" in repr(model._backend())
    assert repr(model._backend()) != repr(before)


def test_arguments_of_a_call_count_for_that_call(model):
    before = model._backend()
    assert model._backend({"timeout": 3.0}) is not before
    assert repr(model._backend()) == repr(before)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])  # noqa: S301 - ours
def test_copies_begin_without(model, duplicate):
    model._backend()
    assert duplicate(model)._last_backend.last is None


def test_a_changed_copy_has_another_one(model):
    backend, other = model._backend(), copy.copy(model)
    other.timeout = 3.0
    assert other._backend() is not backend
    assert repr(model._backend()) == repr(backend)
