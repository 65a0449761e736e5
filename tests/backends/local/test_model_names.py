"""A model's name that nothing has is refused at once, before the hub is asked or torch is imported."""

import asyncio
import subprocess
import sys
import time

import pytest

from llama_vision.backends.local.config import check_model
from llama_vision.core.errors import LocalModelError, UnknownProviderError
from llama_vision.langchain import ChatLlamaVision
from llama_vision.providers import find_provider

WAYS = {
    "invoke": lambda model: model.invoke("Hi"),
    "stream": lambda model: list(model.stream("Hi")),
    "ainvoke": lambda model: asyncio.run(model.ainvoke("Hi")),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_name_that_nothing_has_is_refused_at_once(way):
    model = ChatLlamaVision(provider="local", model="nosuch")
    began = time.monotonic()
    with pytest.raises(LocalModelError, match=r"no model 'nosuch'.*tiny, llama-3\.2-11b-vision"):
        WAYS[way](model)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("wrong", "right"), [("tinny", "tiny"), ("llama-3.2-11b-vison", "llama-3.2-11b-vision")]
)
def test_a_mistyped_model_is_told_the_right_one(wrong, right):
    with pytest.raises(LocalModelError, match=f"Did you mean '{right}'"):
        check_model(wrong)


@pytest.mark.parametrize("name", ["./weights", "/no/such/folder", "a/b/c", ""])
def test_a_folder_that_is_not_there_is_no_id_on_the_hub(name):
    with pytest.raises(LocalModelError, match="a folder that holds weights"):
        check_model(name)


def test_folders_and_ids_on_the_hub_are_models(tmp_path):
    for name in ("tiny", str(tmp_path), "meta-llama/Llama-3.2-11B-Vision-Instruct", "someone/tuned_v1.0"):
        check_model(name)


def test_a_mistyped_provider_is_told_the_right_one():
    with pytest.raises(UnknownProviderError, match="Did you mean 'deepinfra'"):
        find_provider("deepinfar")


def test_no_torch_is_imported_for_it():
    code = (
        "import sys; from llama_vision.cli import main; code = main(['ask', '--provider', 'local', '--model', 'nosuch', 'Hi'])\n"
        "sys.exit('torch' in sys.modules or code != 1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "no model 'nosuch'" in done.stderr
