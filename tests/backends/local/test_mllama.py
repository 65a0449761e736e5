"""The modules of a Mllama are transformers' in names, shapes and results, and come without importing them."""

import subprocess
import sys

import pytest
import torch
from transformers import MllamaConfig, MllamaForConditionalGeneration

from llama_vision.backends.local.mllama import Mllama
from llama_vision.core.errors import LocalModelError
from tests.drawing import one_shape, png
from tests.hugging_face import ASPECT_RATIOS, published_config

ROPES = {
    "default": {},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    },
    "linear": {"factor": 2.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 2.0, "original_max_position_embeddings": 256},
    "longrope": {
        "factor": 2.0,
        "short_factor": [1.0] * 8,
        "long_factor": [2.0] * 8,
        "original_max_position_embeddings": 256,
    },
}


def small_config(rope_type="default", hidden_act="gelu"):
    vision = {"image_size": 56, "hidden_size": 64, "attention_heads": 4, "intermediate_size": 96}
    vision |= {"num_hidden_layers": 3, "num_global_layers": 1, "intermediate_layers_indices": [0, 2]}
    vision |= {
        "vision_output_dim": 192,
        "hidden_act": hidden_act,
        "supported_aspect_ratios": ASPECT_RATIOS,
    }
    text = {"vocab_size": 1024, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    text |= {"num_hidden_layers": 5, "intermediate_size": 96, "cross_attention_layers": [1, 3]}
    text |= {"max_position_embeddings": 512, "bos_token_id": 8, "eos_token_id": 9, "pad_token_id": 12}
    text |= {"rope_parameters": {"rope_type": rope_type, "rope_theta": 1e4, **ROPES[rope_type]}}
    return MllamaConfig(vision_config=vision, text_config=text, image_token_index=1024)


def ours_and_theirs(config, dtype):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = MllamaForConditionalGeneration(config).eval().to(dtype)
        for weights in theirs.parameters():
            weights.data.normal_(std=0.5)
    ours = Mllama(config).eval().to(dtype)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def test_the_weights_of_the_11b_have_the_names_and_shapes_of_transformers():
    with torch.device("meta"):
        models = Mllama(published_config()), MllamaForConditionalGeneration(published_config())
    ours, theirs = ({name: one.shape for name, one in model.named_parameters()} for model in models)
    assert ours == theirs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("hidden_act", ["gelu", "quick_gelu"])
def test_modules_that_are_called_compute_what_those_of_transformers_compute(dtype, hidden_act):
    ours, theirs = ours_and_theirs(small_config(hidden_act=hidden_act), dtype)
    assert ours.dtype == theirs.dtype == dtype
    ids = torch.tensor([[3], [5]])
    hidden = torch.linspace(-3, 3, 2 * 4 * 17 * 64).view(2, 4, 17, 64).to(dtype)
    found = []
    for model in (ours, theirs):
        vision, attention = model.model.vision_model, model.model.language_model.layers[1].cross_attn
        embeddings = (
            vision.gated_positional_embedding,
            vision.pre_tile_positional_embedding,
            vision.post_tile_positional_embedding,
        )
        with torch.inference_mode():
            found.append(
                [
                    *(embedding(hidden, ids) for embedding in embeddings),
                    vision.apply_class_embedding(hidden[0]),
                    vision.global_transformer.layers[0].mlp(hidden),
                    attention.k_norm(hidden.view(-1, 4, 16)),
                ]
            )
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("part", ["text", "vision"])
def test_an_activation_that_is_not_known_is_refused(part):
    config = small_config()
    getattr(config, f"{part}_config").hidden_act = "sinus"
    with pytest.raises(LocalModelError, match=f"The {part} model's hidden_act in config.json is 'sinus'"):
        Mllama(config)


@pytest.mark.parametrize("num_positions", [100, 512])
@pytest.mark.parametrize("rope_type", ROPES)
def test_rotary_embeddings_are_those_of_transformers(rope_type, num_positions):
    like, positions = torch.zeros((), dtype=torch.bfloat16), torch.arange(num_positions)[None]
    ours, theirs = ours_and_theirs(small_config(rope_type), torch.float32)
    found, expected = (
        model.model.language_model.rotary_emb(like, position_ids=positions) for model in (ours, theirs)
    )
    assert all(map(torch.equal, found, expected))


@pytest.mark.slow
def test_a_first_answer_imports_neither_the_compiler_of_torch_nor_the_model_of_transformers(tmp_path):
    code = (
        "import sys\n"
        "from llama_vision.cli import main\n"
        "main(['ask', sys.argv[1], 'What?'])\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    path = tmp_path / "square.png"
    path.write_bytes(png(one_shape(1)[0]))
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip()
    loaded = set(done.stderr.split())
    assert "llama_vision.backends.local.mllama" in loaded
    assert not loaded & {
        "torch._dynamo",
        "torch.distributed.tensor",
        "sympy",
        "scipy",
        "transformers.modeling_utils",
        "transformers.models.mllama.modeling_mllama",
    }
