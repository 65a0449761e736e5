"""The demonstration and its images."""

import shlex
import subprocess
import sys

import PIL.Image
import pytest

from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.demo.demonstration import main
from tests.drawing import SAMPLES


def test_all_its_answers_are_right(capsys):
    assert main() == 0
    assert "13 of 13 right" in capsys.readouterr().out


@pytest.mark.slow
def test_its_command_works_without_a_warning():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "llama_vision.demo"],
        capture_output=True,
        check=False,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "13 of 13 right" in done.stdout
    assert "LangChain" in done.stdout
    assert "LlamaIndex" in done.stdout
    command = shlex.split(done.stdout.splitlines()[-1])
    asked = subprocess.run(command, capture_output=True, check=True, text=True)
    assert asked.stdout == "No\n"


@pytest.mark.parametrize("name", SAMPLES)
def test_the_shapes_of_its_images_are_those_we_draw(name):
    shipped, drawn = PIL.Image.open(SAMPLE_IMAGES[name]).convert("RGB"), SAMPLES[name]()
    assert shipped.size == drawn.size
    if name != "sign":  # letters differ between versions of Pillow
        assert shipped.tobytes() == drawn.tobytes()


def test_every_shipped_image_is_one_of_ours():
    assert SAMPLE_IMAGES.keys() == SAMPLES.keys()
