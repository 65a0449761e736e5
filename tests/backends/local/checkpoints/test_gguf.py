"""GGUF files give the model that they were written from, in one file and in two."""

import builtins
import re
import shutil
from dataclasses import replace

import pytest
import torch
from transformers import MllamaConfig, MllamaForConditionalGeneration

from llama_vision import ChatRequest, Message, SamplingParams, Text, image_from_any
from llama_vision.backends.local import LocalBackend, LocalSettings
from llama_vision.backends.local.int4_linear import Int4Linear
from llama_vision.backends.local.model_loader import TINY_MODEL_PATH, load_model
from llama_vision.core.errors import LocalModelError, MissingDependencyError
from llama_vision.providers import find_provider
from tests.drawing import one_shape
from tests.gguf_models import write_gguf
from tests.hugging_face import ASPECT_RATIOS

CPU = LocalSettings(device="cpu", dtype="float32")
LAYOUTS = pytest.mark.parametrize("projector", [False, True], ids=["one file", "two files"])
ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def difference(found, expected):
    """The largest difference of a weight, relative to the largest of its kind."""
    expected, found = (
        {name: weight.detach() for name, weight in model.named_parameters()} for model in (expected, found)
    )
    assert found.keys() == expected.keys()
    return max(
        float((found[name] - weight).abs().max() / weight.abs().max().clamp(min=1e-9))
        for name, weight in expected.items()
    )


def answers(model, count=20):
    backend = LocalBackend(find_provider("local"), local=LocalSettings(device="cpu"))
    for seed in range(count):
        image, color, shape = one_shape(seed)
        parts = (image_from_any(image), Text(f"What color is the {shape}?"))
        request = ChatRequest(str(model), (Message("user", parts),), sampling=SamplingParams(temperature=0))
        yield backend.complete(request).text == color


@LAYOUTS
@pytest.mark.parametrize(
    ("kind", "tolerance"), [("F32", 0), ("F16", 1e-4), ("BF16", 1e-4), ("Q8_0", 0.005), ("Q4_0", 0.12)]
)
@pytest.mark.slow_beyond(3)
def test_the_tiny_models_weights_come_back(tmp_path, kind, tolerance, projector):
    path, *_ = write_gguf(tmp_path, kind, projector=projector)
    assert difference(load_model(str(path), CPU).model, load_model("tiny", CPU).model) <= tolerance


@LAYOUTS
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
@pytest.mark.slow_beyond(1)
def test_the_tiny_model_answers_as_before(tmp_path, kind, projector):
    path, *_ = write_gguf(tmp_path, kind, projector=projector)
    assert sum(answers(path)) >= 19


@pytest.fixture(scope="module")
def of_256(tmp_path_factory):
    """A random model with rows of 256, as K-quants need them, Llama 3's frequencies and images of four tiles."""
    text = {"vocab_size": 1024, "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4}
    text |= {"num_key_value_heads": 2, "num_hidden_layers": 3, "cross_attention_layers": [1]}
    text |= {"max_position_embeddings": 131072, "rope_parameters": ROPE, "pad_token_id": 0}
    vision = {"hidden_size": 256, "attention_heads": 4, "intermediate_size": 512, "num_hidden_layers": 2}
    vision |= {"num_global_layers": 1, "image_size": 56, "patch_size": 14, "vision_output_dim": 512}
    vision |= {
        "max_num_tiles": 4,
        "intermediate_layers_indices": [1],
        "supported_aspect_ratios": ASPECT_RATIOS,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MllamaForConditionalGeneration(
            MllamaConfig(text_config=text, vision_config=vision, image_token_index=1024)
        )
        for name, weight in model.named_parameters():
            if "gate" in name.rpartition(".")[2]:
                weight.data.uniform_(-2.5, 2.5)
            elif "norm" in name:
                weight.data.normal_(1, 0.3)
    folder = tmp_path_factory.mktemp("models") / "of_256"
    model.save_pretrained(folder)
    for path in TINY_MODEL_PATH.glob("*token*.json"):
        shutil.copy(path, folder)
    return folder, model


@LAYOUTS
@pytest.mark.parametrize(("kind", "tolerance"), [("F32", 1e-5), ("Q6_K", 0.05), ("Q5_K", 0.1), ("Q4_K", 0.2)])
@pytest.mark.slow_beyond(2)
def test_k_quants_frequencies_and_tiles_come_back(of_256, tmp_path, kind, tolerance, projector):
    folder, expected = of_256
    path, *_ = write_gguf(tmp_path, kind, source=folder, projector=projector, mean=None)
    loaded = load_model(str(path), CPU)
    assert difference(loaded.model, expected) <= tolerance
    config = loaded.model.config
    assert config.text_config.rope_parameters == ROPE
    assert config.vision_config.to_dict()["supported_aspect_ratios"] == ASPECT_RATIOS
    like, positions = torch.zeros(()), torch.arange(512)[None]
    ours, theirs = (
        model.model.language_model.rotary_emb(like, positions) for model in (loaded.model, expected)
    )
    torch.testing.assert_close(ours, theirs)
    assert loaded.image_processor_config["image_mean"][0] == pytest.approx(0.4815, abs=1e-4), "CLIP's"


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_K"])
def test_four_bits_stay_as_they_are(of_256, tmp_path, kind):
    path, *_ = write_gguf(tmp_path, kind, source=of_256[0], mean=None)
    plain, small = (load_model(str(path), replace(CPU, quantization=one)).model for one in (None, "int4"))
    same = [
        name
        for name, one in small.named_modules()
        if isinstance(one, Int4Linear)
        and torch.allclose(one.dequantize(0, 10**6), plain.get_submodule(name).weight, rtol=1e-5, atol=1e-6)
    ]
    # Of 3 layers with 7 matrices; Q4_K_M has the values' projections of self-attention in six bits.
    assert len(same) == (21 if kind == "Q4_0" else 19)
    assert isinstance(small.model.language_model.layers[0].self_attn.v_proj, Int4Linear)


def test_the_tokenizer_comes_back(tmp_path):
    path, *_ = write_gguf(tmp_path)
    found, expected = load_model(str(path), CPU), load_model("tiny", CPU)
    assert found.eos_token_ids == expected.eos_token_ids
    for text in ["Hello 12 world, it's 1999!", "  a\n\nb 😀 ünï", "<|image|><|eot_id|>", ""]:
        ids = found.tokenizer.encode(text, add_special_tokens=False).ids
        assert ids == expected.tokenizer.encode(text, add_special_tokens=False).ids
        assert found.tokenizer.decode(ids, skip_special_tokens=False) == text
    ids = range(1008, 1025)
    assert [found.tokenizer.id_to_token(one) for one in ids] == [
        expected.tokenizer.id_to_token(one) for one in ids
    ]


def test_a_folder_of_gguf_files_is_a_checkpoint(tmp_path):
    write_gguf(tmp_path, projector=True)
    assert load_model(str(tmp_path), CPU).context_window == 2048
    (tmp_path / "other.gguf").write_bytes((tmp_path / "model.gguf").read_bytes())
    with pytest.raises(
        LocalModelError, match=r"several GGUF files.*model-mmproj.gguf, model.gguf, other.gguf"
    ):
        load_model(str(tmp_path))


def test_loading_is_shown_in_bytes_and_their_rate(tmp_path, capsys):
    path, *_ = write_gguf(tmp_path)
    load_model(str(path), CPU)
    assert re.search(r"Loading weights: 100%.*\d+\.\dM/\d+\.\dM.*B/s\]", capsys.readouterr().err)


def cut(path):
    path.write_bytes(path.read_bytes()[:-5000])


def cut_in_the_header(path):
    path.write_bytes(path.read_bytes()[:3000])


def of_another_kind(path):
    path.write_bytes(b"PK" + path.read_bytes())


def missing(path):
    path.unlink()


DAMAGED = [
    (cut, "no whole GGUF file.*broken off, run it once more"),
    (cut_in_the_header, "no whole GGUF file.*broken off, run it once more"),
    (of_another_kind, "it is no GGUF file. Of other kinds pass the folder"),
    (missing, "there is no such file"),
]


@pytest.mark.parametrize(("damage", "text"), DAMAGED, ids=[damage.__name__ for damage, _ in DAMAGED])
def test_a_damaged_file_is_refused_with_advice(tmp_path, damage, text):
    path, *_ = write_gguf(tmp_path)
    damage(path)
    with pytest.raises(LocalModelError, match=text):
        load_model(str(path))


def test_a_text_model_without_its_projector_is_refused(tmp_path):
    text, projector = write_gguf(tmp_path, projector=True)
    alone = tmp_path / "alone"
    alone.mkdir()
    with pytest.raises(
        LocalModelError, match=r"holds the text model only.*projector file beside it.*ollama:"
    ):
        load_model(str(shutil.copy(text, alone)))
    shutil.rmtree(alone)
    alone.mkdir()
    with pytest.raises(LocalModelError, match="it is the projector file"):
        load_model(str(shutil.copy(projector, alone)))


UNTRIED = "tried on files of our own making, and never on Ollama's.*safetensors"


OTHERS = [
    ({"general.architecture": "llama"}, "of the kind 'llama'.*this backend runs Llama 3.2 Vision"),
    ({"tokenizer.ggml.pre": "qwen2"}, "splits text as 'qwen2', and not as Llama 3's.*" + UNTRIED),
    ({"mllama.block_count": 7}, "of its weights are missing.*" + UNTRIED),
    ({"mllama.feed_forward_length": 64}, "another shape than its configuration says.*" + UNTRIED),
    ({"split.count": 3}, "split into several files.*--merge"),
]


@pytest.mark.parametrize(("changes", "text"), OTHERS, ids=[text[:12] for _, text in OTHERS])
def test_another_model_is_refused(tmp_path, changes, text):
    architecture = changes.pop("general.architecture", "mllama")
    path, *_ = write_gguf(tmp_path, changes=changes)
    path.write_bytes(path.read_bytes().replace(b"mllama", architecture.encode().ljust(6, b"_"), 1))
    with pytest.raises(LocalModelError, match=text.replace("'llama'", "'llama_'")):
        load_model(str(path))


def test_without_the_library_the_error_names_the_extra(tmp_path, monkeypatch):
    path, *_ = write_gguf(tmp_path)
    original = builtins.__import__

    def without_gguf(name, *arguments, **options):
        if name == "gguf":
            raise ImportError(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_gguf)
    with pytest.raises(MissingDependencyError, match=r"pip install 'llama-vision\[local,gguf\]'"):
        load_model(str(path))
