"""`BatchAsker` without Ray: batches of pandas, pyarrow and plain columns, with answers of a scripted server and the tiny model."""

import io
import os
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import PIL.Image
import pyarrow as pa
import pytest
from pydantic import SecretStr

from llama_vision.core.errors import (
    ConfigurationError,
    UnknownProviderError,
    UnsupportedInputError,
)
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.providers import find_provider
from llama_vision.ray import BatchAsker
from llama_vision.testing import Failure
from tests.drawing import one_shape, png
from tests.ray.asking import Drawing, asker, drawn, echo

KEY = "sk-live-0f1e2d3c4b5a69788796"


def test_a_pandas_frame_with_the_models_real_answers():
    frame = pd.DataFrame(drawn(12), index=range(100, 112))
    before = frame.copy()
    answers = BatchAsker(prompt_column="question", provider="local", model="tiny")(frame)
    pd.testing.assert_frame_equal(frame, before)
    assert list(answers.index) == list(frame.index)
    assert (answers.text == answers.truth).mean() >= 0.9
    assert (answers.finish_reason == "stop").all()
    assert (answers.input_tokens > 10).all()
    assert (answers.output_tokens > 0).all()
    assert (answers.seconds > 0).all()
    assert answers[["cost_usd", "cost_is_estimate", "error_type", "error"]].isna().all(axis=None)
    assert "json" not in answers


def test_answers_of_a_form_are_json_that_fits():
    table = pa.table({"image": [png(one_shape(seed)[0]) for seed in range(6)]})
    answers = BatchAsker("Give the shape and color as JSON.", schema=Drawing)(table).to_pylist()
    found = [Drawing.model_validate_json(row["json"]) for row in answers]
    truth = [one_shape(seed)[1:] for seed in range(6)]
    right = [
        one.shape == shape and one.color == color for one, (color, shape) in zip(found, truth, strict=True)
    ]
    assert sum(right) >= 5


def test_a_table_keeps_its_types_and_new_columns_have_theirs_even_where_all_is_empty(server):
    server.always(Failure(400, "no"))
    table = pa.table({"id": pa.array([1, None], pa.int16()), "image": pa.array([None, None], pa.binary())})
    answers = asker(server, schema=Drawing)(table)
    assert answers.schema.remove_metadata() == pa.schema(
        [
            ("id", pa.int16()),
            ("image", pa.binary()),
            *((name, pa.string()) for name in ("text", "json", "finish_reason")),
            *((name, pa.int64()) for name in ("input_tokens", "output_tokens")),
            ("cost_usd", pa.float64()),
            ("cost_is_estimate", pa.bool_()),
            ("seconds", pa.float64()),
            *((name, pa.string()) for name in ("error_type", "error")),
        ]
    )
    assert answers["error_type"].to_pylist() == ["InvalidRequestError"] * 2


def test_an_empty_frame_has_the_types_of_a_full_one_and_asks_nothing(server):
    ask = asker(server, image_column=None)
    server.script("A", "B")
    frame = pd.DataFrame({"id": [1, 2]})
    full, empty = ask(frame), ask(frame.head(0))
    assert len(empty) == 0
    pd.testing.assert_series_equal(full.dtypes, empty.dtypes)
    assert not any(ask({}).values())


def test_dictionaries_of_arrays_and_of_lists(server):
    server.always(echo)
    ask = asker(server, prompt_column="q", image_column=None, prefix="said_")
    arrays = ask({"q": np.array(["one", "two"])})
    assert isinstance(arrays["said_text"], np.ndarray)
    assert arrays["said_text"].tolist() == ["one 0", "two 0"]
    assert arrays["said_error"].tolist() == [None, None]
    lists = ask({"q": ["one", "two"]})
    assert lists["said_text"] == ["one 0", "two 0"]
    assert lists["q"] == ["one", "two"]


def test_a_cell_is_a_image_in_any_form_or_several_or_none(server):
    server.always(echo)
    path = SAMPLE_IMAGES["circle"]
    data = path.read_bytes()
    image = PIL.Image.open(io.BytesIO(data))
    cells = {
        "bytes": (data, 1),
        "a path": (str(path), 1),
        "a Path": (path, 1),
        "an array": (np.asarray(image.convert("RGB")), 1),
        "PIL": (image, 1),
        "of Hugging Face's datasets": ({"bytes": data, "path": None}, 1),
        "the same with a path": ({"bytes": None, "path": str(path)}, 1),
        "a list": ([data, str(path)], 2),
        "an array of paths": (np.array([str(path)] * 3), 3),
        "an array of objects": (np.array([data, data], dtype=object), 2),
        "nothing": (None, 0),
        "NaN": (float("nan"), 0),
        "NA": (pd.NA, 0),
        "an empty list": ([], 0),
    }
    answers = asker(server, "Pictures?")({"image": [cell for cell, _ in cells.values()]})
    assert answers["error"] == [None] * len(cells)
    said = dict(zip(cells, answers["text"], strict=True))
    assert said == {name: f"Pictures? {count}" for name, (_, count) in cells.items()}


def test_an_address_is_passed_on(server):
    server.script("A cat.")
    asker(server)({"image": ["https://example.com/cat.png"]})
    assert server.requests[0].image_urls == ["https://example.com/cat.png"]
    assert server.requests[0].text == "Describe the image."


WRONG = {
    "no such provider": ({"provider": "nope"}, UnknownProviderError, "nope"),
    "two prompts": ({"prompt": "What?", "prompt_column": "q"}, ConfigurationError, "give one of both"),
    "no rows at once": ({"concurrency": 0}, ConfigurationError, "at least 1"),
    "an unknown option": ({"max_token": 5}, ConfigurationError, "no option max_token.*max_tokens"),
    "tools": ({"tools": []}, ConfigurationError, "no option tools"),
    "headers": ({"headers": {"x-key": KEY}}, ConfigurationError, "no option headers"),
    "a value out of range": ({"max_tokens": 0}, UnsupportedInputError, "max_tokens=0"),
    "no such way": ({"on_error": "ignore"}, ConfigurationError, "'keep' or 'raise'"),
    "no schema": ({"schema": "color"}, ConfigurationError, "not 'color'"),
    "no pictures": ({"provider": "cloudflare-openai"}, UnsupportedInputError, "image_column=None"),
    "no address": ({"provider": "openai-compatible"}, ConfigurationError, "base_url"),
    "a key": ({"provider": "deepinfra", "api_key": KEY}, ConfigurationError, "would be pickled"),
    "a hidden key": (
        {"provider": "deepinfra", "api_key": SecretStr(KEY)},
        ConfigurationError,
        "would be pickled",
    ),
}


@pytest.mark.parametrize(("options", "kind", "text"), WRONG.values(), ids=WRONG)
def test_wrong_use_is_told_before_there_are_rows(options, kind, text):
    with pytest.raises(kind, match=text) as caught:
        BatchAsker(**{"model": None, **options})
    assert KEY not in repr(caught.value)


def test_wrong_batches(server):
    ask = asker(server)
    with pytest.raises(
        ConfigurationError, match=r"no column 'image'. Its columns are: id, file\..*image_column=None"
    ):
        ask({"id": [1], "file": ["a.png"]})
    with pytest.raises(ConfigurationError, match=r"has the columns text, error already. Give another prefix"):
        ask({"image": [None], "text": ["?"], "error": [None]})
    with pytest.raises(ConfigurationError, match="not a list"):
        ask([{"image": None}])


def test_no_key_travels(server, monkeypatch):
    """It is found where the model is asked, also by an asker that came out of a pickle."""
    monkeypatch.setenv("DEEPINFRA_TOKEN", KEY)
    ask = BatchAsker("What?", provider="deepinfra", base_url=server.base_url, image_column=None)
    server.always("A cat.")
    ask({"id": [1]})
    shown = [repr(ask), repr(pickle.dumps(ask)), repr(vars(ask))]
    assert not [text for text in shown if KEY in text]
    monkeypatch.setenv("DEEPINFRA_TOKEN", "another-key")
    travelled = pickle.loads(pickle.dumps(ask))  # noqa: S301 - our own
    assert travelled({"id": [1]})["text"] == ["A cat."]
    assert [request.headers["authorization"] for request in server.requests] == [
        f"Bearer {KEY}",
        "Bearer another-key",
    ]


def test_without_a_key_each_row_says_which_variables_were_looked_at(monkeypatch):
    for name in find_provider("deepinfra").key_env:
        monkeypatch.delenv(name, raising=False)
    answers = BatchAsker(provider="deepinfra", image_column=None)({"id": [1, 2]})
    assert answers["error_type"] == ["MissingKeyError"] * 2
    assert "DEEPINFRA_TOKEN" in answers["error"][0]


def test_its_name_says_what_it_asks(server):
    assert repr(asker(server, "What?")).startswith("BatchAsker('What?', provider='scripted'")
    assert repr(asker(server, prompt_column="q")).startswith("BatchAsker(prompt_column='q', ")


@pytest.mark.slow
def test_pandas_is_enough():
    """Dask's and Spark's workers need no Ray, and nothing of it is loaded."""
    code = """
import sys
sys.modules["ray"] = None  # as if it were not installed
import pandas
from llama_vision.core.errors import MissingDependencyError
from llama_vision.ray import BatchAsker, ask_dataset
print(BatchAsker("Say hi", provider="local", model="tiny", image_column=None)(pandas.DataFrame({"id": [1]})).text[0])
try:
    ask_dataset(None)
except MissingDependencyError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
        env={name: value for name, value in os.environ.items() if not name.startswith("LLAMA_VISION_")},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["Hi", "Ray Data is not installed: pip install 'llama-vision[ray]'"]
