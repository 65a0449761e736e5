"""The tiny model answers its evaluation questions in every kind of checkpoint as it does in its own."""

import pytest

from benchmarks.checkpoint_kinds import ask, kinds, shares

_QUESTIONS_OF_EACH = 2


@pytest.fixture(scope="module")
def before():
    return ask("tiny", None, _QUESTIONS_OF_EACH)


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.name)
def test_answers_are_as_before(kind, before, tmp_path):
    found = ask(kind.write(tmp_path / "model"), kind.quantization, _QUESTIONS_OF_EACH)
    _, same, still_right = shares(found, before)
    assert still_right >= 0.95
    assert same >= 0.9
