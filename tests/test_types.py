"""What a type checker says of code that uses the package as README does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import llama_vision

_RIGHT = """
from typing import Any, TypedDict, assert_type

from langchain_core.language_models import LanguageModelInput
from langchain_core.runnables import Runnable
from pydantic import BaseModel, SecretStr

from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision, LlamaVisionMultiModal


class Cat(BaseModel):
    name: str


class Dog(TypedDict):
    name: str


async def token() -> str:
    return "made-up"


model = ChatLlamaVision(provider="deepinfra", model="m", api_key="made-up", stop=["END"], tags=["a"])
ChatLlamaVision(model_name="m", api_key=SecretStr("made-up"), stop="END")
ChatLlamaVision(api_key=lambda: "made-up", stop_sequences=["END"], timeout=3)
ChatLlamaVision(api_key=token)
LlamaVision(model="m", api_key="made-up", temperature=0.5)
LlamaVisionMultiModal(model="m", api_key="made-up")
names: list[str] = [model.model, model.model_name]

assert_type(model.with_structured_output(Cat), Runnable[LanguageModelInput, Cat])
assert_type(model.with_structured_output(Cat, method="prompt").invoke("Hi"), Cat)
assert_type(model.with_structured_output(Dog).invoke("Hi"), Dog)
assert_type(model.with_structured_output({"type": "object"}).invoke("Hi"), dict[str, Any])
assert_type(model.with_structured_output(Cat, include_raw=True).invoke("Hi"), dict[str, Any])
assert_type(model.with_structured_output(None, method="json_mode").invoke("Hi"), Any)
"""

_WRONG = {
    "ChatLlamaVision(temprature=0)": "temprature",
    "ChatLlamaVision(temperature='hot')": "temperature",
    "ChatLlamaVision(api_key=3)": "api_key",
    "LlamaVision(modle='m')": "modle",
}


@pytest.mark.slow
def test_a_type_checker_takes_the_documented_use_and_finds_what_is_wrong(tmp_path):
    (tmp_path / "right.py").write_text(_RIGHT)
    head = "from llama_vision.langchain import ChatLlamaVision\nfrom llama_vision.llamaindex import LlamaVision\n"
    (tmp_path / "wrong.py").write_text(head + "\n".join(_WRONG))
    settings = {"extraPaths": [str(Path(llama_vision.__file__).parents[1])], "typeCheckingMode": "strict"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pyright",
            "--outputjson",
            "--pythonpath",
            sys.executable,
            "-p",
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(done.stdout)["generalDiagnostics"]
    errors = {(Path(each["file"]).name, each["range"]["start"]["line"]): each["message"] for each in found}
    assert [place for place in errors if place[0] == "right.py"] == []
    for line, word in enumerate(_WRONG.values(), start=2):
        assert word in errors["wrong.py", line]
