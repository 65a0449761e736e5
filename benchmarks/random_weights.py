"""Mllamas with random weights, to be timed: the 11B's shape, and a tiny one that only shows that the benchmark runs."""

from dataclasses import dataclass

import torch
from transformers import GenerationConfig, MllamaConfig, MllamaForConditionalGeneration

from llama_vision.backends.local.device_map import resolve_device_map
from llama_vision.backends.local.guided_decoding import GrammarCompiler
from llama_vision.backends.local.model_loader import LoadedModel, load_model
from llama_vision.backends.local.quantization import quantize

PIXELS = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28], "max_image_tiles": 4}


@dataclass(frozen=True)
class Shape:
    """A model shape, and what is measured with it.

    Attributes:
        vision: Options of the vision config that differ from the 11B's.
        text: The same of the text config.
        batch_sizes: Batch sizes.
        tokens: Decode steps that are timed.
        warmup: Decode steps before them.
        copied: Bytes that are copied to measure the memory bandwidth.
        matrix: Rows and columns of the matrices that are multiplied to measure the arithmetic.
        requests: Requests through the backend at once.
        slots: How many of them run together.
        reply_tokens: Tokens of each reply.
        prompt_tokens: Tokens of a long prompt.
        arrival_s: Seconds in which requests come that come and go.
    """

    vision: dict
    text: dict
    batch_sizes: tuple[int, ...] = (1, 8, 32)
    tokens: int = 64
    warmup: int = 8
    copied: int = 2**32
    matrix: int = 8192
    requests: int = 64
    slots: int = 32
    reply_tokens: int = 128
    prompt_tokens: int = 8000
    arrival_s: float = 4.0


ROPE = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
FULL = Shape({"image_size": 560, "max_num_tiles": 4}, {"rope_parameters": ROPE})
TINY = Shape(
    vision={
        "image_size": 56,
        "max_num_tiles": 4,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_global_layers": 1,
        "attention_heads": 2,
        "intermediate_size": 64,
        "intermediate_layers_indices": [1],
        "vision_output_dim": 64,
    },
    text={
        "vocab_size": 1024,
        "hidden_size": 64,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
        "cross_attention_layers": [1, 3],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "rope_parameters": ROPE,
    },
    batch_sizes=(1, 4),
    tokens=16,
    warmup=2,
    copied=2**22,
    matrix=128,
    requests=8,
    slots=4,
    reply_tokens=6,
    prompt_tokens=200,
    arrival_s=0.2,
)


def random_mllama(shape, device):
    """Build the weights on their device, in bfloat16."""
    config = MllamaConfig(
        vision_config=shape.vision,
        text_config=shape.text,
        image_token_index=shape.text.get("vocab_size", 128256),
    )
    torch.manual_seed(1)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = MllamaForConditionalGeneration(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    for name, weights in model.named_parameters():
        if name.endswith("gate"):  # zero at initialization, which would hide the images
            weights.data.fill_(0.5)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=None, pad_token_id=0)
    return model


def random_model(shape, device, quantization):
    model = random_mllama(shape, device)
    if quantization is not None:
        quantize(model, quantization, device)
    tiny = load_model("tiny")
    side = shape.vision["image_size"]
    return LoadedModel(
        model=model,
        device_map=resolve_device_map({"": torch.device(device)}, model.config.text_config.num_hidden_layers),
        image_processor_config={**PIXELS, "size": {"height": side, "width": side}},
        tokenizer=tiny.tokenizer,
        context_window=16384,
        eos_token_ids=frozenset(),  # every reply is as long as `max_tokens`
        grammar_compiler=GrammarCompiler(tiny.tokenizer, tiny.eos_token_ids),
    )
