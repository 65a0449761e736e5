"""Reference: the same model run by transformers' own `generate`, which the engine has to agree with."""

import contextlib
import copy
import io
import itertools
from dataclasses import replace
from weakref import WeakKeyDictionary

import PIL.Image
import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MllamaConfig,
    MllamaForConditionalGeneration,
)
from transformers.initialization import no_init_weights
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)

from llama_vision.backends.local.chat_template import apply_chat_template
from llama_vision.backends.local.grammar import build_grammar
from llama_vision.backends.local.guided_decoding import unpack_bitmask
from llama_vision.backends.local.image_input import ImagePreprocessor
from llama_vision.backends.local.input_processor import tokenize_prompt

ASPECT_RATIOS = [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]]


def published_config(**text):
    """The 11B's configuration, as published; the 90B's with what its text decoder has other than that."""
    rope = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    vision = {"image_size": 560, "supported_aspect_ratios": ASPECT_RATIOS}
    text = {"max_position_embeddings": 131072, "rope_parameters": rope, **text}
    return MllamaConfig(text_config=text, vision_config=vision, dtype="bfloat16")


OF_THE_90B = {
    "num_hidden_layers": 100,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_attention_heads": 64,
    "cross_attention_layers": list(range(3, 100, 5)),
}
"""https://huggingface.co/meta-llama/Llama-3.2-90B-Vision-Instruct, config.json."""


def transformers_model(loaded):
    """transformers' own model with the same layers, quantized ones too, and the same weights."""
    model = loaded.model
    if isinstance(model, MllamaForConditionalGeneration):
        return model
    if model not in _transformers_models:
        _transformers_models[model] = _transformers_model(model)
    return _transformers_models[model]


_transformers_models = WeakKeyDictionary()


def _transformers_model(model):
    with torch.device("meta"), no_init_weights():
        theirs = MllamaForConditionalGeneration(model.config).eval()
    rotary = type(theirs.model.language_model.rotary_emb)
    theirs.model.language_model.rotary_emb = rotary(model.config.text_config)
    for path, module in model.named_modules():
        if next(module.children(), None) is not None:
            for name, weights in module.named_parameters(recurse=False):
                setattr(theirs.get_submodule(path), name, weights)
        elif not path.endswith("rotary_emb"):
            theirs.set_submodule(path, module)
    theirs.generation_config = model.generation_config
    return theirs


def model_inputs(loaded, request):
    """Inputs of `generate`, made by transformers' image processor and masks."""
    preprocessor = ImagePreprocessor(loaded, lambda key: None)
    ids = tokenize_prompt(loaded, preprocessor, apply_chat_template(request)).token_ids
    inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
    images = [PIL.Image.open(io.BytesIO(image.data)) for image in request.images()]
    if images:
        processor = MllamaImageProcessorPil(**loaded.image_processor_config)
        features = processor(images=[images], return_tensors="pt")
        mask = convert_sparse_cross_attention_mask_to_dense(
            [get_cross_attention_token_mask(ids, loaded.model.config.image_token_index)],
            num_tiles=features["num_tiles"],
            max_num_tiles=processor.max_image_tiles,
            length=len(ids),
        )
        names = ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")
        inputs |= {name: features[name] for name in names} | {"cross_attention_mask": torch.as_tensor(mask)}
    return inputs


def left_padded_batch(loaded, requests):
    """Inputs of `generate` for several requests: tokens padded on the left, images on the right."""
    rows = [model_inputs(loaded, request) for request in requests]
    max_len = max(row["input_ids"].shape[1] for row in rows)
    most_images = next(row for row in rows if _num_images(row) == max(map(_num_images, rows)))
    batch = [
        {
            name: _padded(row.get(name), like, max_len if name in _PER_TOKEN else None)
            for name, like in most_images.items()
        }
        for row in rows
    ]
    return {name: torch.cat([row[name] for row in batch]) for name in most_images}


_PER_TOKEN = ("input_ids", "attention_mask", "cross_attention_mask")


def _num_images(row):
    return row["pixel_values"].shape[1] if "pixel_values" in row else 0


def _padded(tensor, like, seq_len):
    shape = [1, like.shape[1] if seq_len is None else seq_len, *like.shape[2:]]
    padded = torch.zeros(shape, dtype=like.dtype)
    if tensor is not None:
        # Tokens are the second dimension's end, images its beginning.
        region = [slice(size) for size in tensor.shape]
        if seq_len is not None:
            region[1] = slice(seq_len - tensor.shape[1], None)
        padded[tuple(region)] = tensor
    return padded


def generate_batch(loaded, batch, *, repaired):
    """Token ids of greedy replies to a batch of requests with equal `max_tokens`, as `generate` gives them for one."""
    model = transformers_model(loaded)
    with torch.inference_mode(), row_mask_repaired(model) if repaired else contextlib.nullcontext():
        all_ids = model.generate(**batch, max_new_tokens=48, do_sample=False)
    replies = all_ids[:, batch["input_ids"].shape[1] :].tolist()
    return [
        list(itertools.takewhile(lambda token: token not in loaded.eos_token_ids, reply)) for reply in replies
    ]


@contextlib.contextmanager
def row_mask_repaired(model):
    """Apply the row mask to the output of cross-attention too (transformers issue 39379)."""
    masks, hooks = {}, []

    def before(layer, args, options):
        masks[layer.cross_attn] = options["full_text_row_masked_out_mask"]

    def after(attention, args, output):
        mask = masks[attention]
        return output if mask is None else (mask[:, 0] * output[0], *output[1:])

    for layer in model.model.language_model.layers:
        if hasattr(layer, "cross_attn"):
            hooks.append(layer.register_forward_pre_hook(before, with_kwargs=True))
            hooks.append(layer.cross_attn.register_forward_hook(after))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _GrammarProcessor(LogitsProcessor):
    """Guided decoding for `generate`: masks logits, and accepts each token one step later."""

    def __init__(self, matcher, prompt_len, eos_token_ids):
        self.matcher, self.prompt_len, self.eos_token_ids = matcher, prompt_len, eos_token_ids

    def __call__(self, input_ids, scores):
        if input_ids.shape[1] > self.prompt_len:
            self.matcher.accept_token(int(input_ids[0, -1]))
        if self.matcher.is_terminated:
            return scores.masked_fill(torch.arange(scores.shape[1]) != min(self.eos_token_ids), float("-inf"))
        if not self.matcher.is_active:
            return scores
        allowed = torch.as_tensor(unpack_bitmask([self.matcher.token_bitmask()], scores.shape[1])[0])
        return scores.masked_fill(~allowed, float("-inf"))


def generate(loaded, request):
    """Token ids of a greedy reply, without the one that ends it."""
    return [token for token in generate_scored(loaded, request)[0] if token not in loaded.eos_token_ids]


def generate_scored(loaded, request):
    """Token ids of a greedy reply with the one that ends it, and the scores of each, (tokens, vocab_size)."""
    inputs = model_inputs(loaded, request)
    grammar = build_grammar(request)
    prompt_len = inputs["input_ids"].shape[1]
    processors = LogitsProcessorList()
    if grammar is not None:
        matcher = loaded.grammar_compiler.compile(grammar)
        processors.append(_GrammarProcessor(matcher, prompt_len, loaded.eos_token_ids))
    model = transformers_model(loaded)
    with torch.inference_mode(), row_mask_repaired(model):
        output = model.generate(
            **inputs,
            max_new_tokens=request.sampling.max_tokens,
            do_sample=False,
            logits_processor=processors,
            return_dict_in_generate=True,
            output_scores=True,
        )
    return output.sequences[0, prompt_len:].tolist(), torch.cat(output.scores)


def with_four_tiles(loaded):
    """A model with up to four tiles per image: the tiny one's weights, and random ones where shapes differ."""
    config = copy.deepcopy(loaded.model.config)
    config.vision_config.max_num_tiles = 4
    config.vision_config.supported_aspect_ratios = ASPECT_RATIOS
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = MllamaForConditionalGeneration(config).eval().float()
        state = model.state_dict()
        for name, weights in loaded.model.state_dict().items():
            if state[name].shape == weights.shape:
                state[name] = weights
            elif state[name].is_floating_point():
                state[name] = torch.randn_like(state[name]) * 0.3
        model.load_state_dict(state)
        for name, weights in model.named_parameters():
            if "gate" in name:
                weights.data.fill_(0.7)
    model.generation_config = loaded.model.generation_config
    return replace(
        loaded,
        model=model,
        image_processor_config={**loaded.image_processor_config, "max_image_tiles": 4},
    )
