"""Tags of Ollama's are found in its store, in both of its layouts."""

import base64
import json
from pathlib import Path

import pytest

from llama_vision.backends.local import LocalSettings
from llama_vision.backends.local.checkpoints.ollama_store import find_tag, store_folders
from llama_vision.backends.local.model_loader import load_model
from llama_vision.core.errors import LocalModelError
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.langchain import ChatLlamaVision
from tests.gguf_models import write_gguf, write_ollama_store

CPU = LocalSettings(device="cpu", dtype="float32")


@pytest.fixture(scope="module", params=[False, True], ids=["one file", "two files"])
def files(request, tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf"), "Q8_0", projector=request.param)


@pytest.fixture
def store(files, tmp_path, monkeypatch):
    write_ollama_store(
        tmp_path / "models", files, parameters={"temperature": 0.6, "top_p": 0.9, "stop": ["x"]}
    )
    monkeypatch.setenv("OLLAMA_MODELS", f' "{tmp_path / "models"}" ')
    return tmp_path / "models"


@pytest.mark.usefixtures("store")
def test_a_tag_answers():
    model = ChatLlamaVision(provider="local", model="ollama:llama3.2-vision", temperature=0)
    circle = base64.b64encode(Path(SAMPLE_IMAGES["circle"]).read_bytes()).decode()
    image = {"type": "image", "base64": circle, "mime_type": "image/png"}
    question = {"type": "text", "text": "What color is the circle?"}
    assert model.invoke([("user", [image, question])]).text == "blue"
    model.close()


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    "tag",
    [
        "llama3.2-vision:latest",
        "library/llama3.2-vision",
        "registry.ollama.ai/library/llama3.2-vision:latest",
        "Llama3.2-Vision",
    ],
)
def test_a_tag_may_be_spelled_in_full(tag):
    assert find_tag(tag).weights == find_tag("llama3.2-vision").weights


@pytest.mark.usefixtures("store")
def test_ollamas_parameters_are_the_sampling_defaults():
    config = load_model("ollama:llama3.2-vision", CPU).model.generation_config
    assert (config.do_sample, config.temperature, config.top_p) == (True, 0.6, 0.9)


def test_the_path_of_a_blob_finds_its_projector(files, tmp_path):
    blob, *_ = write_ollama_store(tmp_path, files)
    assert load_model(str(blob), CPU).model.generation_config.do_sample is False


@pytest.mark.parametrize("tag", ["llama3.2-vision:90b", "x/llama3.2-vision", "example.com/a/b:c"])
def test_an_unknown_tag_is_refused_with_those_there_are(store, tag):
    with pytest.raises(
        LocalModelError, match=rf"no such tag.*{store}.*holds llama3.2-vision:latest.*`ollama pull {tag}`"
    ):
        load_model(f"ollama:{tag}")


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("tag", ["", "a/b/c/d", "../../etc", "a//b", ":"])
def test_what_is_no_name_is_refused(tag):
    with pytest.raises(LocalModelError, match=r"no name of Ollama's.*'ollama:llama3.2-vision:11b'"):
        load_model(f"ollama:{tag}")


def test_a_blob_that_is_not_whole_is_refused(store):
    blob = max((store / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    size = blob.stat().st_size
    blob.write_bytes(blob.read_bytes()[:1000])
    with pytest.raises(
        LocalModelError, match=rf"{blob.name} 1,000 of {size:,} bytes are here.*`ollama pull llama3.2-vision`"
    ):
        load_model("ollama:llama3.2-vision")
    blob.rename(blob.with_name(blob.name + "-partial"))
    with pytest.raises(LocalModelError, match=" 0 of "):
        load_model("ollama:llama3.2-vision")


CHANGES = [
    (lambda layers: layers.clear(), "holds no GGUF file"),
    (
        lambda layers: layers.append(layers[0] | {"mediaType": "application/vnd.ollama.image.adapter"}),
        "an adapter in Ollama's own",
    ),
    (lambda layers: layers[0].pop("digest"), "its manifest.*can't be read.*`ollama pull"),
]


@pytest.mark.parametrize(("change", "text"), CHANGES, ids=[text[:16] for _, text in CHANGES])
def test_a_tag_of_another_kind_is_refused(store, change, text):
    (manifest,) = (path for path in (store / "manifests").rglob("*") if path.is_file())
    content = json.loads(manifest.read_text())
    change(content["layers"])
    manifest.write_text(json.dumps(content))
    with pytest.raises(LocalModelError, match=text):
        load_model("ollama:llama3.2-vision")


def test_without_the_variable_the_default_folders_are_searched(monkeypatch, tmp_path):
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [str(folder) for folder in store_folders()] == [
        str(tmp_path / ".ollama" / "models"),
        "/usr/share/ollama/.ollama/models",
    ]
