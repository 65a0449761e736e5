"""What goes wrong with one image is listed, and the others are captioned."""

from pathlib import Path

import pytest

from llama_vision.core.errors import (
    AuthenticationError,
    ImageError,
    MalformedReplyError,
    MissingKeyError,
    ServerError,
    UnsupportedInputError,
)
from llama_vision.llamaindex import LlamaVision
from tests.captions.captioning import caption, draw, model_at, naming
from tests.emulator import completion

ROOT = Path(__file__).parents[2]


def test_a_broken_file_and_a_refusal_are_listed_and_the_others_captioned(emulator, folder):
    paths = draw(folder, 4)
    refused = paths[1].read_bytes()
    paths[2].write_bytes(b"<!doctype html><p>Not found")
    (folder / "empty.jpg").touch()

    def answer(received):
        return emulator.refusal(500, "Out of memory") if received.images[0] == refused else naming(received)

    emulator.always(answer)
    found = caption(folder, model_at(emulator))
    assert [node.image_path for node in found.nodes] == [str(paths[0]), str(paths[3])]
    failures = {failure.path: failure.error for failure in found.failures}
    assert failures.keys() == {paths[1], paths[2], folder / "empty.jpg"}
    assert isinstance(failures[paths[1]], ServerError)
    assert isinstance(failures[paths[2]], ImageError)
    assert len(emulator.requests) == 3
    text = str(found)
    assert "3 images have none" in text
    assert "Out of memory" in text
    assert f"  {paths[1]}: " in text
    assert f"  {paths[2]}: This is not an image: it looks like a web page" in text


def test_a_missing_file_among_several_is_listed_and_alone_is_an_error(emulator, folder):
    (path,) = draw(folder, 1)
    missing = folder / "missing.png"
    found = caption([missing, path], model_at(emulator))
    assert len(found.nodes) == 1
    assert [failure.path for failure in found.failures] == [missing]
    with pytest.raises(ImageError, match=r"missing\.png"):
        caption(missing, model_at(emulator))


def test_an_empty_folder_gives_nothing(emulator, folder):
    found = caption(folder, model_at(emulator))
    assert (found.nodes, found.failures, str(found)) == ([], [], "0 captions, 0 of them new")


def test_a_wrong_key_is_tried_once_and_not_for_every_image(emulator, folder):
    draw(folder, 6)
    found = caption(folder, model_at(emulator, api_key="wrong-key"), concurrency=1)
    assert len(emulator.requests) == 1
    assert len(found.failures) == 6
    assert all(isinstance(failure.error, AuthenticationError) for failure in found.failures)
    assert "wrong-key" not in str(found)


def test_without_a_key_the_failures_say_where_to_get_one(folder, monkeypatch):
    for name in ("DEEPINFRA_API_KEY", "DEEPINFRA_API_TOKEN", "DEEPINFRA_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    draw(folder, 2)
    found = caption(folder, LlamaVision(provider="deepinfra"))
    assert all(isinstance(failure.error, MissingKeyError) for failure in found.failures)
    assert len(found.failures) == 2


def test_a_image_of_which_nothing_is_said_is_a_failure(emulator, folder):
    draw(folder, 1)
    emulator.script(completion("  \n"), completion("", finish_reason="length"))
    (silent,) = caption(folder, model_at(emulator)).failures
    (cut,) = caption(folder, model_at(emulator)).failures
    assert isinstance(silent.error, MalformedReplyError)
    assert "another prompt" in str(silent)
    assert "raise max_tokens" in str(cut)


def test_captions_that_were_cut_off_are_named_also_when_they_are_found_again(emulator, folder, tmp_path):
    (path,) = draw(folder, 1)
    emulator.script(completion("A cat on", finish_reason="length"))
    for _ in range(2):
        found = caption(folder, model_at(emulator), resume=tmp_path / "captions.jsonl")
        assert found.truncated == [path]
        assert "raise max_tokens" in str(found)


def test_a_mistyped_option_is_one_error_and_not_one_for_each_image(emulator, folder):
    draw(folder, 3)
    with pytest.raises(UnsupportedInputError, match="no option max_token"):
        caption(folder, model_at(emulator), max_token=5)
    assert emulator.requests == []
