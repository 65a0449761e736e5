"""The same model answered by transformers' own `generate`, one request at a time: what the engine has to agree with."""

import contextlib
import copy
import io
import itertools
from dataclasses import replace

import PIL.Image
import torch
from transformers import LogitsProcessor, LogitsProcessorList, MllamaForConditionalGeneration
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)

from llama_vision.backends.local.chat_template import apply_chat_template
from llama_vision.backends.local.grammar import build_grammar
from llama_vision.backends.local.input_processor import tokenize_prompt
from llama_vision.backends.local.vision_encoder import VisionEncoder

TILINGS = [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]]


def tensors_of(loaded, request):
    """What `generate` takes, made by Hugging Face's preprocessing and masks."""
    ids = tokenize_prompt(loaded, VisionEncoder(loaded, 0), apply_chat_template(request)).token_ids
    tensors = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
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
        tensors |= {name: features[name] for name in names} | {"cross_attention_mask": torch.as_tensor(mask)}
    return tensors


def batch_of(loaded, requests):
    """What `generate` takes for several requests at once: filled up on the left, and with empty images."""
    rows = [tensors_of(loaded, request) for request in requests]
    longest = max(row["input_ids"].shape[1] for row in rows)
    fullest = next(row for row in rows if _images(row) == max(map(_images, rows)))
    batch = [
        {
            name: _filled(row.get(name), like, longest if name in _BY_WORD else None)
            for name, like in fullest.items()
        }
        for row in rows
    ]
    return {name: torch.cat([row[name] for row in batch]) for name in fullest}


_BY_WORD = ("input_ids", "attention_mask", "cross_attention_mask")


def _images(row):
    return row["pixel_values"].shape[1] if "pixel_values" in row else 0


def _filled(tensor, like, words):
    """Put zeros in front of the words, and behind the images."""
    shape = [1, like.shape[1] if words is None else words, *like.shape[2:]]
    filled = torch.zeros(shape, dtype=like.dtype)
    if tensor is not None:
        # The words stand at the end of the second dimension, images at the beginning of theirs.
        place = [slice(size) for size in tensor.shape]
        if words is not None:
            place[1] = slice(words - tensor.shape[1], None)
        filled[tuple(place)] = tensor
    return filled


def generated_together(loaded, batch, *, repaired):
    """The tokens of greedy answers to a batch of requests with equal `max_tokens`, as `generated` gives them for one."""
    with (
        torch.inference_mode(),
        row_mask_repaired(loaded.model) if repaired else contextlib.nullcontext(),
    ):
        all_ids = loaded.model.generate(**batch, max_new_tokens=48, do_sample=False)
    answers = all_ids[:, batch["input_ids"].shape[1] :].tolist()
    return [
        list(itertools.takewhile(lambda token: token not in loaded.end_ids, answer)) for answer in answers
    ]


@contextlib.contextmanager
def row_mask_repaired(network):
    """Let words that see no image take nothing from one after attention either (transformers issue 39379)."""
    masks, hooks = {}, []

    def before(layer, args, options):
        masks[layer.cross_attn] = options["full_text_row_masked_out_mask"]

    def after(attention, args, found):
        mask = masks[attention]
        return found if mask is None else (mask[:, 0] * found[0], *found[1:])

    for layer in network.model.language_model.layers:
        if hasattr(layer, "cross_attn"):
            hooks.append(layer.register_forward_pre_hook(before, with_kwargs=True))
            hooks.append(layer.cross_attn.register_forward_hook(after))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Held(LogitsProcessor):
    """Leaves only what a constraint allows, and tells it what was chosen one step later."""

    def __init__(self, constraint, prompt_tokens, ends):
        self.constraint, self.prompt_tokens, self.ends = constraint, prompt_tokens, ends

    def __call__(self, input_ids, scores):
        if input_ids.shape[1] > self.prompt_tokens:
            self.constraint.accept(int(input_ids[0, -1]))
        if self.constraint.complete:
            return scores.masked_fill(torch.arange(scores.shape[1]) != min(self.ends), float("-inf"))
        if not self.constraint.active:
            return scores
        allowed = torch.as_tensor(self.constraint.allowed(scores.shape[1]))
        return scores.masked_fill(~allowed, float("-inf"))


def generated(loaded, request):
    """The tokens of a greedy answer, without the one that ends it."""
    tensors = tensors_of(loaded, request)
    grammar = build_grammar(request)
    length = tensors["input_ids"].shape[1]
    processors = LogitsProcessorList()
    if grammar is not None:
        constraint = loaded.grammar_compiler.constraint(grammar)
        processors.append(_Held(constraint, length, loaded.end_ids))
    with torch.inference_mode(), row_mask_repaired(loaded.model):
        all_ids = loaded.model.generate(
            **tensors,
            max_new_tokens=request.sampling.max_tokens,
            do_sample=False,
            logits_processor=processors,
        )
    return [token for token in all_ids[0, length:].tolist() if token not in loaded.end_ids]


def with_four_tiles(loaded):
    """Make a model that cuts images into up to four tiles: the tiny one's weights, and chance where they don't fit."""
    config = copy.deepcopy(loaded.model.config)
    config.vision_config.max_num_tiles = 4
    config.vision_config.supported_aspect_ratios = TILINGS
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = MllamaForConditionalGeneration(config).eval().float()
        state = network.state_dict()
        for name, weights in loaded.model.state_dict().items():
            if state[name].shape == weights.shape:
                state[name] = weights
            elif state[name].is_floating_point():
                state[name] = torch.randn_like(state[name]) * 0.3
        network.load_state_dict(state)
        for name, weights in network.named_parameters():
            if "gate" in name:
                weights.data.fill_(0.7)
    network.generation_config = loaded.model.generation_config
    return replace(
        loaded,
        network=network,
        image_processor_config={**loaded.image_processor_config, "max_image_tiles": 4},
    )
