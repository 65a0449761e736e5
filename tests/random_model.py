"""A checkpoint folder of a small Mllama with random weights and up to four tiles per image."""

import json
import shutil

import torch
from transformers import MllamaConfig, MllamaForConditionalGeneration

from llama_vision.backends.local.model_loader import TINY_MODEL_PATH
from tests.hugging_face import ASPECT_RATIOS

SIDE = 56


def write_random_model(folder, seed=5, side=SIDE, patch_size=14):
    """Write weights, tokenizer and image processor configuration into a new folder."""
    vision = {
        "image_size": side,
        "patch_size": patch_size,
        "max_num_tiles": 4,
        "supported_aspect_ratios": ASPECT_RATIOS,
    }
    vision |= {"hidden_size": 64, "attention_heads": 4, "intermediate_size": 96, "num_hidden_layers": 3}
    vision |= {"num_global_layers": 1, "intermediate_layers_indices": [0, 2], "vision_output_dim": 192}
    text = {"vocab_size": 1024, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    text |= {"num_hidden_layers": 5, "intermediate_size": 96, "cross_attention_layers": [1, 3]}
    text |= {"max_position_embeddings": 512, "bos_token_id": 1008, "pad_token_id": 1012}
    text |= {
        "eos_token_id": [1009, 1016, 1017],
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MllamaForConditionalGeneration(
            MllamaConfig(vision_config=vision, text_config=text, image_token_index=1024)
        )
        for name, weights in model.named_parameters():
            if "gate" in name:
                weights.data.fill_(0.7)
            elif weights.dim() > 1:
                weights.data.normal_(std=0.25)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(TINY_MODEL_PATH / name, folder)
    options = json.loads((TINY_MODEL_PATH / "processor_config.json").read_text())["image_processor"]
    options |= {"max_image_tiles": 4, "size": {"height": side, "width": side}}
    (folder / "preprocessor_config.json").write_text(json.dumps(options))
    return folder
