"""A LoRA adapter that PEFT trained changes the model as PEFT's own forward says."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import MllamaForConditionalGeneration

from llama_vision import ChatRequest, Message, SamplingParams, Text
from llama_vision.backends.local import LocalBackend, LocalSettings
from llama_vision.backends.local.model_loader import TINY_MODEL_PATH, load_model
from llama_vision.core.errors import LocalModelError
from llama_vision.providers import find_provider
from tests.hugging_face import model_inputs, transformers_model

# PEFT's own: it asks transformers in an old way, and tells that embeddings are saved.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing", "ignore::UserWarning:peft")

REQUEST = ChatRequest(
    "tiny", (Message("user", (Text("Say hi"),)),), sampling=SamplingParams(temperature=0, max_tokens=4)
)
PROJECTIONS = ["q_proj", "v_proj", "up_proj"]


def tiny():
    return MllamaForConditionalGeneration.from_pretrained(TINY_MODEL_PATH, dtype=torch.float32)


def settings(adapter, **others):
    return LocalSettings(device="cpu", dtype="float32", adapter=str(adapter), **others)


def trained(folder, steps=8, **config):
    """Train an adapter for a few steps to answer with a token of its own, and save it."""
    loaded = load_model("tiny", LocalSettings(device="cpu", dtype="float32"))
    ids = model_inputs(loaded, REQUEST)["input_ids"]
    torch.manual_seed(0)
    model = get_peft_model(
        tiny(), LoraConfig(**({"r": 4, "lora_alpha": 16, "target_modules": PROJECTIONS} | config))
    )
    answer = loaded.tokenizer.token_to_id("!")
    optimizer = torch.optim.Adam((one for one in model.parameters() if one.requires_grad), lr=0.02)
    for _ in range(steps):
        logits = model(input_ids=ids).logits[0, -1]
        loss = torch.nn.functional.cross_entropy(logits[None], torch.tensor([answer]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    return ids


def logits_of_peft(folder, ids):
    with torch.inference_mode():
        return PeftModel.from_pretrained(tiny(), folder).eval()(input_ids=ids).logits


CONFIGS = {
    "plain": {},
    "vision too": {"target_modules": [*PROJECTIONS, "fc1", "multi_modal_projector"]},
    "rank-stabilized": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {"v_proj": 2},
        "alpha_pattern": {"v_proj": 5, r"layers\.2\.mlp\.up_proj": 9},
    },
    "embedding and whole layers": {
        "target_modules": ["q_proj", "embed_tokens"],
        "modules_to_save": ["lm_head", "multi_modal_projector"],
    },
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.slow_beyond(2)
def test_logits_are_those_of_peft(tmp_path, config):
    ids = trained(tmp_path, steps=3, **config)
    expected = logits_of_peft(tmp_path, ids)
    loaded, plain = (
        load_model("tiny", settings(tmp_path)),
        load_model("tiny", LocalSettings(device="cpu", dtype="float32")),
    )
    with torch.inference_mode():
        found, without = (transformers_model(one)(input_ids=ids).logits for one in (loaded, plain))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    assert (found - without).abs().max() > 0.1


def test_an_adapter_changes_the_answer(tmp_path):
    trained(tmp_path)
    plain, adapted = (
        LocalBackend(find_provider("local"), local=local).complete(REQUEST).text
        for local in (LocalSettings(device="cpu"), settings(tmp_path))
    )
    assert plain == "Hi"
    assert adapted.startswith("!")


@pytest.mark.slow
def test_an_adapter_is_merged_before_quantization(tmp_path):
    trained(tmp_path)
    backend = LocalBackend(find_provider("local"), local=settings(tmp_path, quantization="int8"))
    assert backend.complete(REQUEST).text.startswith("!")


@pytest.fixture
def adapter(tmp_path):
    trained(tmp_path, steps=1)
    return tmp_path


def change_config(folder, **values):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def without_config(folder):
    (folder / "adapter_config.json").unlink()


def without_weights(folder):
    (folder / "adapter_model.safetensors").unlink()


def with_dora(folder):
    change_config(folder, use_dora=True)


def of_another_kind(folder):
    change_config(folder, peft_type="LOHA")


def for_another_model(folder):
    path = folder / "adapter_model.safetensors"
    save_file({name.replace("layers.0.", "layers.70."): one for name, one in load_file(path).items()}, path)


def for_another_width(folder):
    path = folder / "adapter_model.safetensors"
    save_file(
        {
            name: one[:, :-1].contiguous() if "lora_A" in name else one
            for name, one in load_file(path).items()
        },
        path,
    )


DAMAGED = [
    (without_config, "has no adapter_config.json.*`save_pretrained` wrote"),
    (without_weights, "no adapter_model.safetensors.*pickles are not read"),
    (with_dora, r"kind use_dora.*`merge_and_unload\(\)`"),
    (of_another_kind, r"kind LOHA.*`merge_and_unload\(\)`"),
    (for_another_model, "belong to no weight of the model.*layers.70.*Pass the model it was trained on"),
    (for_another_width, r"for a shape \(\d+, \d+\), and the model's is.*Pass the model it was trained on"),
]


@pytest.mark.parametrize(("damage", "text"), DAMAGED, ids=[damage.__name__ for damage, _ in DAMAGED])
@pytest.mark.slow_beyond(2)
def test_an_adapter_that_cannot_be_merged_is_refused(adapter, damage, text):
    damage(adapter)
    with pytest.raises(LocalModelError, match=rf"The adapter {adapter} can't be loaded: .*{text}"):
        load_model("tiny", settings(adapter))


def test_an_adapter_passed_as_the_model_is_explained(adapter):
    with pytest.raises(LocalModelError, match=r"it is a LoRA adapter.*LocalSettings\(adapter=...\)"):
        load_model(str(adapter))
