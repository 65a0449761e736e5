"""`ask_dataset` on a real Ray, which runs on this machine only: right answers, no row lost, whatever happens to an actor."""

import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel

from llama_vision.core.errors import ConfigurationError
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.ray import ask_dataset
from llama_vision.testing import Failure, ScriptedServer
from tests.drawing import one_shape, png

# Ray Data makes its default settings, and its own deprecated ones say so then.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")

KEY = "sk-live-0f1e2d3c4b5a69788796"


class Drawing(BaseModel):
    shape: Literal["circle", "square"]


@pytest.fixture(scope="module")
def ray():
    """Two processors of this machine, behind a token, with nothing left behind and nobody told."""
    folder = Path(
        tempfile.mkdtemp(prefix="ray")
    )  # short: sockets lie in it, whose paths may have 107 letters
    # With usage statistics off Ray still asks which cloud it is in, at an address that may be anything, unless this is there.
    (folder / "ray_bootstrap_config.yaml").write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("RAY_worker_niceness", "0")  # by default they give way to all else that runs here
        patch.setenv("DEEPINFRA_TOKEN", KEY)  # the workers', from which they take the key
        import ray
        import ray.data

        ray.init(
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=100 << 20,
            log_to_driver=False,
            logging_level="error",
            _temp_dir=str(folder / "ray"),
        )
        # As it is with what is in a script or a notebook, which the workers can't import.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        settings = ray.data.DataContext.get_current()
        settings.execution_options.preserve_order = True
        settings.enable_progress_bars = False
        yield ray
        ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)  # processes of Ray that are about to end may still write


@pytest.fixture
def server():
    with ScriptedServer() as server:
        yield server


def hosted(server, **options):
    return {"provider": "deepinfra", "base_url": server.base_url, "max_retries": 0, **options}


@pytest.mark.slow
def test_the_models_real_answers_with_failures_in_their_rows_and_in_order(ray):
    rows = []
    for seed in range(60):
        image, color, shape = one_shape(seed)
        rows.append({"id": seed, "image": png(image), "q": f"What color is the {shape}?", "truth": color})
    for seed in (0, 17, 59):
        rows[seed] |= {"image": b"<!doctype html>", "truth": None}
    dataset = ray.data.from_items(rows, override_num_blocks=10)
    answers = ask_dataset(dataset, prompt_column="q", provider="local", model="tiny", batch_size=8)
    found = answers.take_all()
    assert [row["id"] for row in found] == list(range(60))
    assert [row["id"] for row in found if row["error_type"] is not None] == [0, 17, 59]
    assert {row["error_type"] for row in found} == {None, "ImageError"}
    assert "not an image" in found[17]["error"]
    assert sum(row["text"] == row["truth"] for row in found) >= 57 * 0.9 + 3
    assert {type(row["input_tokens"]) for row in found} == {int, type(None)}


def test_answers_of_a_form_from_a_provider_of_the_users_own(ray, server):
    server.always(lambda request: {"shape": "circle" if request.images else "blob"})
    rows = [{"image": str(SAMPLE_IMAGES["circle"])}, {"image": None}, {"image": str(SAMPLE_IMAGES["circle"])}]
    dataset = ray.data.from_items(rows, override_num_blocks=3)
    found = ask_dataset(dataset, schema=Drawing, **server.model_options).take_all()
    assert [row["json"] for row in found] == ['{"shape": "circle"}', None, '{"shape": "circle"}']
    assert found[1]["error_type"] == "MalformedReplyError"


@pytest.mark.slow
def test_a_hosted_model_with_the_key_of_the_workers_and_bounded_calls(ray, server):
    def answer(request):
        assert request.headers["authorization"] == f"Bearer {KEY}"
        return Failure(400, "not seven") if request.text == "7" else f"{request.text} {len(request.images)}"

    server.always(answer)
    rows = [{"q": str(number), "image": [str(SAMPLE_IMAGES["circle"])] * 2} for number in range(30)]
    dataset = ray.data.from_items(rows, override_num_blocks=10)
    found = ask_dataset(dataset, prompt_column="q", **hosted(server, concurrency=3)).take_all()
    assert [row["q"] for row in found] == [row["q"] for row in rows]
    assert [row["text"] for row in found] == [None if n == 7 else f"{n} 2" for n in range(30)]
    assert found[7]["error_type"] == "InvalidRequestError"
    assert len(server.requests) == 30


@pytest.mark.slow
def test_a_limit_goes_before_the_questions(ray, server):
    server.always("A circle.")
    dataset = ray.data.from_items([{"id": number} for number in range(100)], override_num_blocks=1)
    asked = ask_dataset(dataset, image_column=None, batch_size=10, **hosted(server))
    assert len(asked.limit(20).take_all()) == 20
    assert len(server.requests) == 20


@pytest.mark.slow
def test_failures_are_raised_where_that_is_wanted(ray, server):
    server.always(Failure(400, "I won't"))
    dataset = ray.data.from_items([{"id": 1}])
    asked = ask_dataset(dataset, image_column=None, **hosted(server, on_error="raise"))
    with pytest.raises(ray.exceptions.RayTaskError, match=r"InvalidRequestError.*I won't"):
        asked.take_all()


class Deadly:
    """An open file that kills the process which reads it for the first time."""

    def __init__(self, mark):
        self.mark = mark

    def seekable(self):
        return False

    def read(self):
        if not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return SAMPLE_IMAGES["circle"].read_bytes()


@pytest.mark.slow
def test_an_actor_that_dies_loses_no_row(ray, server, tmp_path):
    server.always("A circle.")
    mark = tmp_path / "killed"
    rows = [{"id": number, "image": Deadly(mark) if number == 21 else None} for number in range(40)]
    dataset = ray.data.from_items(rows, override_num_blocks=10)
    found = ask_dataset(dataset, actors=2, batch_size=4, **hosted(server)).take_all()
    assert mark.exists()
    assert [row["id"] for row in found] == list(range(40))
    assert {row["text"] for row in found} == {"A circle."}
    assert len([request for request in server.requests if request.images]) == 1


@pytest.mark.slow
def test_actors_leave_room_for_the_tasks_that_feed_them(ray, server):
    """With a processor each two actors would hold both, and the repartition would wait for ever."""
    server.always("Yes.")
    rows = [{"id": number} for number in range(20)]
    shuffled = ray.data.from_items(rows, override_num_blocks=10).repartition(5)
    asked = ask_dataset(shuffled, image_column=None, actors=2, batch_size=2, **hosted(server))
    assert sorted(row["id"] for row in asked.take_all()) == list(range(20))
    with pytest.warns(UserWarning, match="2 actors with num_cpus=1 take all of the cluster's 2 processors"):
        ask_dataset(shuffled, image_column=None, actors=2, num_cpus=1, **hosted(server))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"actors": 0}, "nobody to ask"),
        ({"actors": (3, 2)}, "nobody to ask"),
        ({"batch_size": 0}, "nothing to ask about"),
        ({"api_key": KEY}, "would be pickled"),
        ({"temprature": 0}, "no option temprature"),
        ({"timeout": threading.Lock()}, "timeout is .*lock"),
    ],
)
def test_wrong_use_is_told_before_an_actor_starts(ray, options, text):
    dataset = ray.data.from_items([{"image": None}])
    with pytest.raises(ConfigurationError, match=text) as caught:
        ask_dataset(dataset, **{"provider": "deepinfra", **options})
    assert KEY not in repr(caught.value)


def test_nobody_is_told_of_it(ray):
    from ray._common.usage import usage_lib

    assert not usage_lib.usage_stats_enabled()
