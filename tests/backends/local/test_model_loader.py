"""A checkpoint is loaded once, and where that fails, the error says what to do."""

import asyncio
import gc
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import load_file, save_file

from llama_vision import ChatRequest, Message, Text, image_from_any
from llama_vision.backends.local import LocalBackend, LocalSettings
from llama_vision.backends.local.engine import Engine
from llama_vision.backends.local.engine_thread import get_engine_thread
from llama_vision.backends.local.model_loader import TINY_MODEL_PATH, load_model
from llama_vision.core.errors import LocalModelError
from llama_vision.providers import find_provider
from tests.drawing import one_shape
from tests.random_model import write_random_model


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_random_model(tmp_path_factory.mktemp("models") / "whole")


@pytest.fixture
def folder(whole, tmp_path):
    """A checkpoint folder to damage."""
    return shutil.copytree(whole, tmp_path / "model")


def run_python(code, **environment):
    """Run a program: its stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        text=True,
        timeout=300,
        env=os.environ | environment,
    )
    return done.stdout, done.stderr


def without_weights(folder):
    (folder / "model.safetensors").unlink()


def with_cut_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])


def with_a_weight_left_out(folder):
    weights = load_file(folder / "model.safetensors")
    del weights[next(name for name in weights if name.endswith("norm.weight") and "layer" not in name)]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def with_another_shape(folder):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 128
    (folder / "config.json").write_text(json.dumps(config))


def of_another_kind(folder):
    (folder / "config.json").write_text('{"model_type": "llama", "hidden_size": 64}')


def with_half_a_config(folder):
    (folder / "config.json").write_text('{"model_type": "mll')


def without_a_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()


def without_preprocessing(folder):
    (folder / "preprocessor_config.json").unlink()


DAMAGED = [
    (
        without_weights,
        r"has to hold config.json, \*.safetensors.*no file named model.safetensors.*`hf download` fetches what is missing",
    ),
    (
        with_cut_weights,
        "cut off after 5,000 bytes.*Delete this file and run the same download once more",
    ),
    (
        with_a_weight_left_out,
        r"1 of its weights are missing \(model.language_model.norm.weight\).*written without them.*from one place",
    ),
    (with_another_shape, r"15 of its weights have another shape.*layers.0.mlp.down_proj.weight.*, \.\.\."),
    (of_another_kind, "of the kind 'llama', and this backend runs Llama 3.2 Vision.*provider='vllm'"),
    (with_half_a_config, "damaged has to be deleted.*not a valid JSON file"),
    (without_a_tokenizer, "tokenizer.json.*`hf download` fetches it"),
    (without_preprocessing, "preprocessor_config.json"),
]


@pytest.mark.parametrize(("damage", "text"), DAMAGED, ids=[damage.__name__ for damage, _ in DAMAGED])
def test_a_damaged_checkpoint_is_refused_with_advice(folder, damage, text):
    damage(folder)
    with pytest.raises(LocalModelError, match=rf"(?s)model\S* can't be loaded: .*{text}") as caught:
        load_model(str(folder))
    assert caught.value.__cause__ is not caught.value  # or walking the chain would never end


def test_after_a_failure_the_repaired_folder_loads(folder):
    (folder / "config.json").rename(folder / "elsewhere")
    with pytest.raises(LocalModelError):
        load_model(str(folder))
    (folder / "elsewhere").rename(folder / "config.json")
    assert load_model(str(folder)).context_window == 512


def test_a_failed_load_fails_all_queued_requests(folder):
    """Not one load after the other, each as long as the first."""
    without_weights(folder)
    backend = LocalBackend(find_provider("local"))
    request = ChatRequest(str(folder), (Message("user", (Text("Hi"),)),))

    async def gather():
        replies = (backend.acomplete(request) for _ in range(8))
        return await asyncio.gather(*replies, return_exceptions=True)

    errors = asyncio.run(gather())
    assert len(errors) == 8
    assert all(isinstance(error, LocalModelError) for error in errors), errors
    assert "`hf download` fetches what is missing" in str(errors[0])
    assert len(set(map(id, errors))) == 1, "the model was loaded more than once"


@pytest.mark.parametrize("device", ["cuda:77", "banana"])
def test_a_missing_device_is_refused_before_anything_is_read(device):
    with pytest.raises(
        LocalModelError, match=rf"can't use a device '{device}'.*can be .*'cpu'.*The reason: "
    ):
        load_model("/no/such/folder", LocalSettings(device=device))


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("/no/such/folder", "it is no folder here"),
        ("acme/never-downloaded", "not on this machine.*without HF_HUB_OFFLINE"),
    ],
)
def test_a_missing_checkpoint_is_refused(model, text):
    with pytest.raises(LocalModelError, match=rf"{model} can't be loaded: .*{text}"):
        load_model(model)


class Hub(BaseHTTPRequestHandler):
    """Answers as the Hugging Face hub does for gated and missing repositories."""

    def do_GET(self):
        self.refuse()

    def do_HEAD(self):
        self.refuse()

    def refuse(self):
        gated = "gated" in self.path
        self.send_response(403 if gated else 404)
        self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
        self.send_header("X-Error-Message", "Access to this model is restricted")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.slow
def test_the_hub_refuses_and_the_error_says_what_to_do(tmp_path):
    code = """
from llama_vision.backends.local.model_loader import load_model
from llama_vision.core.errors import LocalModelError
for model in ("acme/gated", "acme/missing"):
    try:
        load_model(model)
    except LocalModelError as error:
        print(" ".join(str(error).split()))
"""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        printed, _ = run_python(
            code, HF_ENDPOINT=address, HF_HUB_OFFLINE="0", HF_HOME=str(tmp_path), NO_PROXY="127.0.0.1"
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    gated, missing = printed.splitlines()
    assert gated.startswith(
        "acme/gated can't be loaded: its weights are given to those who accept Meta's license"
    )
    assert "https://huggingface.co/acme/gated" in gated
    assert "hf auth login" in gated
    assert missing.startswith("acme/missing can't be loaded: the Hugging Face hub shows no such model")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems don't keep to the limit")
def test_out_of_memory_says_what_would_fit(folder):
    weights = load_file(folder / "model.safetensors")
    big = torch.zeros(2_000_000, 64)  # half a gigabyte
    weights["model.language_model.embed_tokens.weight"] = big
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["vocab_size"] = len(big) - 8
    weights["lm_head.weight"] = torch.zeros(len(big) - 8, 64)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    code = f"""
import resource
from llama_vision.backends.local.model_loader import load_model
from llama_vision.core.errors import LocalModelError
load_model("tiny")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 10**8, used + 3 * 10**8))
try:
    load_model({str(folder)!r})
except LocalModelError as error:
    print(error)
"""
    printed, _ = run_python(code)
    assert "model does not fit into the memory of cpu: the 11B takes 22 GB" in printed
    assert "quantization='int8'" in printed


@pytest.mark.slow
def test_a_hub_id_is_found_in_the_cache(whole, tmp_path):
    repository = tmp_path / "hub" / "models--acme--mllama"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(whole, repository / "snapshots" / ("0" * 40))
    code = """
from llama_vision.langchain import ChatLlamaVision
reply = ChatLlamaVision(provider="local", model="acme/mllama", temperature=0, max_tokens=8).invoke("Hi")
print(reply.usage_metadata["output_tokens"])
"""
    printed, _ = run_python(code, HF_HUB_CACHE=str(tmp_path / "hub"))
    assert int(printed) > 0


LOADED = "from llama_vision.backends.local.model_loader import load_model; load_model({!r})"


@pytest.mark.slow
def test_the_progress_bar_can_be_turned_off(whole):
    assert "100%" in run_python(LOADED.format(str(whole)))[1]
    assert run_python(LOADED.format(str(whole)), TQDM_DISABLE="1") == ("", "")
    assert run_python(LOADED.format("tiny")) == ("", "")


@pytest.mark.slow
def test_text_only_requests_import_no_image_processor():
    code = """
import sys
from llama_vision import ChatRequest, Message, Text, image_from_any
from llama_vision.backends.local import LocalBackend
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.providers import find_provider
modules = ["llama_vision.backends.local.image_processor", "transformers.models.mllama.image_processing_pil_mllama"]
backend = LocalBackend(find_provider("local"))
for parts in [(Text("Say hi"),), (image_from_any(SAMPLE_IMAGES["circle"]), Text("Say hi"))]:
    backend.complete(ChatRequest("tiny", (Message("user", parts),)))
    print(*[name in sys.modules for name in modules])
"""
    assert run_python(code)[0] == "False False\nTrue False\n"


def test_engines_of_other_settings_share_the_weights():
    one, other = (
        LocalSettings(max_batch_size=2),
        LocalSettings(max_batch_size=5, max_model_len=300, max_waiting=9),
    )
    assert load_model("tiny", one) is load_model("tiny", other) is load_model("tiny")
    assert get_engine_thread("tiny", one) is not get_engine_thread("tiny", other)


def test_another_dtype_is_another_copy():
    plain = load_model("tiny", LocalSettings(device="cpu"))
    others = [LocalSettings(device="cpu", dtype="bfloat16"), LocalSettings(device="cpu", quantization="int8")]
    assert len({id(one) for one in [plain, *(load_model("tiny", settings) for settings in others)]}) >= 2
    for settings in others:
        other = load_model("tiny", settings)
        assert other is not plain
        assert load_model("tiny", settings) is other


def test_loading_is_logged(whole, caplog):
    caplog.set_level("INFO", "llama_vision")
    loaded = load_model(str(whole), LocalSettings(device="cpu", dtype="bfloat16", quantization="int8"))
    (message,) = caplog.messages
    size = sum(one.nbytes for one in [*loaded.model.parameters(), *loaded.model.buffers()])
    assert message.startswith(f"Loaded {whole} on cpu, torch.bfloat16, quantization int8: {size} bytes in ")


def test_concurrent_loads_get_the_same_copy(whole):
    found = [None] * 6
    start = threading.Barrier(len(found))

    def work(number):
        start.wait()
        found[number] = load_model(str(whole), LocalSettings(device="cpu", dtype="float16"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(found))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(one) for one in found}) == 1


@pytest.mark.slow
def test_unused_weights_are_freed():
    settings = LocalSettings(device="cpu", dtype="float16")
    engine = Engine(load_model("tiny", settings), settings)
    first = id(load_model("tiny", settings))
    assert id(load_model("tiny", settings)) == first
    weights = [load_model("tiny", settings).model]
    del engine
    gc.collect()
    assert load_model("tiny", settings).model is not weights[0]


def test_two_engines_share_weights_at_the_same_time():
    backends = [
        LocalBackend(find_provider("local"), local=LocalSettings(max_batch_size=size)) for size in (1, 3)
    ]
    answers = {}

    def work(number):
        image, color, shape = one_shape(number)
        request = ChatRequest(
            "tiny", (Message("user", (image_from_any(image), Text(f"What color is the {shape}?"))),)
        )
        answers[number] = backends[number % 2].complete(request).text == color

    threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == dict.fromkeys(range(10), True)


def test_the_tiny_models_folder_is_a_folder_like_any():
    assert load_model(str(TINY_MODEL_PATH)).context_window == load_model("tiny").context_window
