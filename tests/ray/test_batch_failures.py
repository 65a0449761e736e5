"""Rows that fail, and answers that do not fit: each says so in its own row, with what was paid for it."""

import json
import pickle
import threading

import pyarrow as pa
import pytest

from llama_vision.core.errors import (
    ImageError,
    InvalidRequestError,
)
from llama_vision.core.usage import Usage
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.ray import BatchAsker
from llama_vision.testing import Answer, Failure
from tests.ray.asking import Drawing, asker, echo

KEY = "sk-live-0f1e2d3c4b5a69788796"


BROKEN = {
    "no picture": (b"<!doctype html>", ImageError, "not an image"),
    "no file": ("/no/such/picture.png", ImageError, "'/no/such/picture.png' can't be read"),
    "one of several": ([SAMPLE_IMAGES["circle"], b"junk"], ImageError, "Image 2 of 2: "),
    "a gap": ([SAMPLE_IMAGES["circle"], None], ImageError, "Image 2 of 2: It is missing"),
    "an empty dictionary": ({"bytes": None, "path": None}, ImageError, "neither bytes nor path"),
    "a number": (7, ImageError, "A int is not an image"),
    "a name that is half a letter": ("/no/\udcff.png", ImageError, "\\udcff"),
}


def test_what_fails_stays_in_its_row_and_the_others_are_answered(server):
    server.always(echo)
    cells = [SAMPLE_IMAGES["circle"], *(cell for cell, *_ in BROKEN.values()), None]
    batch = {"image": cells, "id": list(range(len(cells)))}
    answers = asker(server, "Pictures?")(batch)
    assert answers["id"] == batch["id"]
    assert (answers["text"][0], answers["text"][-1]) == ("Pictures? 1", "Pictures? 0")
    failed = slice(1, -1)
    for kind, text, (_, expected, part) in zip(
        answers["error_type"][failed], answers["error"][failed], BROKEN.values(), strict=True
    ):
        assert kind == expected.__name__
        assert part in text
    assert answers["text"][failed] == [None] * len(BROKEN)
    assert pa.array(answers["error"], pa.string())  # also half a letter is text
    assert len(server.requests) == 2


@pytest.mark.parametrize("cell", [None, "", "  ", 7, float("nan")])
def test_a_row_without_a_question(server, cell):
    server.script("Yes.")
    answers = asker(server, prompt_column="q", image_column=None)({"q": [cell, "Is it?"]})
    assert answers["error_type"] == ["UnsupportedInputError", None]
    assert "prompt is " in answers["error"][0]


def test_what_went_with_each_question(server):
    server.script(Answer("It is", finish_reason="length", usage=Usage(7, 2, cost_usd=0.25)))
    ask = asker(server, "What?", system="Be brief.", max_tokens=2, temperature=0, stop="\n")
    answers = ask({"image": [SAMPLE_IMAGES["circle"]]})
    assert (answers["finish_reason"], answers["cost_usd"]) == (["length"], [0.25])
    assert (answers["input_tokens"], answers["output_tokens"]) == ([7], [2])
    assert answers["cost_is_estimate"] == [False]
    body = server.requests[0].body
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert [part["type"] for part in body["messages"][1]["content"]] == ["image_url", "text"]
    assert (body["max_tokens"], body["temperature"], body["stop"]) == (2, 0, ["\n"])


@pytest.mark.parametrize(
    "bad", ["It is red.", '{"shape": "blob", "color": "red"}', '{"shape": NaN}', {"shape": "star"}]
)
@pytest.mark.parametrize("schema", [Drawing, Drawing.model_json_schema()], ids=["class", "schema"])
def test_an_answer_that_does_not_fit_is_asked_for_again(server, bad, schema):
    server.script(bad, {"shape": "star", "color": "red"})
    answers = asker(server, schema=schema)({"image": [None]})
    assert json.loads(answers["json"][0]) == {"shape": "star", "color": "red"}
    assert answers["error"] == [None]
    assert answers["input_tokens"] == [20]  # of both
    asked = server.requests[1].messages
    assert [message["role"] for message in asked] == ["user", "assistant", "user"]
    assert asked[2]["content"].startswith("That answer does not fit:")


def test_an_answer_that_never_fits_is_a_failure_with_its_words_and_what_it_took(server):
    server.always('{"shape": "blob"}')
    answers = asker(server, schema=Drawing)({"image": [None]})
    assert len(server.requests) == 3
    assert (answers["json"], answers["error_type"]) == ([None], ["MalformedReplyError"])
    assert "asked 3 times" in answers["error"][0]
    assert "shape" in answers["error"][0]
    assert answers["text"] == ['{"shape": "blob"}']
    assert answers["input_tokens"] == [30]


def test_an_answer_that_was_cut_off_is_not_asked_for_again(server):
    server.script(Answer('{"shape": "st', finish_reason="length"))
    answers = asker(server, schema=Drawing)({"image": [None]})
    assert "raise max_tokens" in answers["error"][0]
    assert answers["finish_reason"] == ["length"]


def test_a_failure_later_on_keeps_what_was_paid_for(server):
    server.script("No idea.", Failure(400, "no more"))
    answers = asker(server, schema=Drawing)({"image": [None]})
    assert answers["error_type"] == ["InvalidRequestError"]
    assert (answers["text"], answers["input_tokens"]) == (["No idea."], [10])


@pytest.mark.parametrize(("provider", "way"), [("deepinfra", "tools"), ("aimlapi", "words")])
def test_where_a_schema_is_not_enforced_it_is_asked_for_otherwise(server, provider, way):
    server.always({"shape": "star", "color": "red"})
    ask = BatchAsker(schema=Drawing, provider=provider, base_url=server.base_url, api_key=lambda: KEY)
    answers = ask({"image": [None]})
    assert json.loads(answers["json"][0])["shape"] == "star"
    body = server.requests[0].body
    assert ("tools" in body) == (way == "tools")
    assert ("JSON schema" in server.requests[0].text) == (way == "words")


def test_half_a_letter_in_json_is_written_as_json_has_it(server):
    server.script('{"shape": "star", "color": "\\ud800"}')
    schema = {"type": "object", "properties": {"color": {"type": "string"}}}
    (found,) = asker(server, schema=schema)(pa.table({"image": ["https://example.com/a.png"]})).to_pylist()
    assert json.loads(found["json"]) == {"shape": "star", "color": "\ud800"}


def test_rows_are_asked_about_together_within_bounds_and_come_back_in_order(server):
    lock, now, most = threading.Lock(), 0, 0
    six = threading.Barrier(6)

    def together(request):
        nonlocal now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
        six.wait(timeout=60)  # which fewer at once would never pass
        with lock:
            now -= 1
        return request.text

    server.always(together)
    numbers = [str(number) for number in range(24)]
    ask = asker(server, prompt_column="q", image_column=None, concurrency=6)
    assert ask({"q": numbers})["text"] == numbers
    assert most == 6


def test_after_an_error_that_all_rows_would_meet_no_more_are_asked_of_that_batch(server):
    server.always(Failure(401, "wrong key"))
    ask = asker(server, image_column=None, concurrency=2)
    assert ask({"id": list(range(50))})["error_type"] == ["AuthenticationError"] * 50
    assert len(server.requests) <= 2
    server.always("Fine.")
    assert ask({"id": [1]})["text"] == ["Fine."]


def test_failures_are_raised_where_that_is_wanted(server):
    server.script("Yes.", Failure(400, "not that one"))
    ask = asker(server, image_column=None, on_error="raise", concurrency=1)
    with pytest.raises(InvalidRequestError, match="not that one") as caught:
        ask({"id": list(range(30))})
    assert caught.value.__notes__ == ["This was row 2 of a batch of 30."]
    assert len(server.requests) == 2
    travelled = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
    assert travelled.status_code == 400
