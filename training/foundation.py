"""Makes the untrained model: tokenizer, image processor and configuration.

`python -m training.foundation FOLDER`
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, MllamaConfig, MllamaProcessor, PreTrainedTokenizerFast
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

from llama_vision.backends.local.chat_template import apply_chat_template
from llama_vision.core.messages import Message, Text
from llama_vision.core.request import ChatRequest
from training import tools, words
from training.images import chart, scene
from training.questions import Asker
from training.signs import sign

IMAGE_SIZE, PATCH_SIZE = 96, 8
VOCABULARY = 1024
_CONTROLS = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|step_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
    *(f"<|reserved_special_token_{number}|>" for number in range(2, 7)),
]
"""In the order of Llama 3.2's own, of which the tiny model has fewer."""

# As Llama 3's, but with one digit per token, so that numbers are read and written digit by digit.
_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def write_foundation(folder: Path, *, seed: int = 0) -> None:
    """Write tokenizer, image processor and configuration into a folder.

    Args:
        folder: Created where it doesn't exist.
        seed: Of the texts that the tokenizer is trained on.
    """
    tokenizer = _tokenizer(seed)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="<|finetune_right_pad_id|>",
        padding_side="left",
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
    pixels = MllamaImageProcessorPil(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        max_image_tiles=1,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    MllamaProcessor(pixels, wrapped).save_pretrained(folder)
    config = _config(tokenizer)
    config.save_pretrained(folder)
    text = config.text_config
    GenerationConfig(
        bos_token_id=text.bos_token_id,
        eos_token_id=text.eos_token_id,
        pad_token_id=text.pad_token_id,
        do_sample=False,
    ).save_pretrained(folder)


def _config(tokenizer: Tokenizer) -> MllamaConfig:
    number = tokenizer.token_to_id
    return MllamaConfig(
        vision_config={
            "hidden_size": 128,
            "num_hidden_layers": 4,
            "num_global_layers": 1,
            "attention_heads": 4,
            "intermediate_size": 384,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH_SIZE,
            "max_num_tiles": 1,
            "supported_aspect_ratios": [[1, 1]],
            "intermediate_layers_indices": [1],
            "vision_output_dim": 256,
        },
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": 192,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "intermediate_size": 448,
            "cross_attention_layers": [1, 3],
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "max_position_embeddings": 2048,
            "bos_token_id": number("<|begin_of_text|>"),
            "eos_token_id": [number(token) for token in ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")],
            "pad_token_id": number("<|finetune_right_pad_id|>"),
        },
        image_token_index=VOCABULARY,
    )


def _tokenizer(seed: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    splits = [
        pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(_CONTROLS),
        min_frequency=10,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(Random(seed)), trainer)
    # Llama's image token comes after all others and has no logit.
    tokenizer.add_special_tokens(
        [
            f"<|reserved_special_token_{7 + n}|>"
            for n in range(VOCABULARY - len(_CONTROLS) - tokenizer.get_vocab_size())
        ]
    )
    tokenizer.add_special_tokens(_CONTROLS)
    tokenizer.add_special_tokens(["<|image|>"])
    begin = "<|begin_of_text|>"
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{begin} $A", special_tokens=[(begin, tokenizer.token_to_id(begin))]
            ),
        ]
    )
    if tokenizer.token_to_id("<|image|>") != VOCABULARY:
        raise RuntimeError(
            f"<|image|> has to be token {VOCABULARY}, and is {tokenizer.token_to_id('<|image|>')}."
        )
    return tokenizer


def _texts(chance: Random) -> Iterator[str]:
    """Generate training texts, without capitals, which are read letter by letter."""
    asker = Asker(chance, careless=True)
    for number in range(4000):
        drawing = (scene, scene, sign, chart)[number % 4](chance)
        for question in filter(None, (asker.ask(drawing) for _ in range(4))):
            yield (
                question.text
                if drawing.text and drawing.text in question.text
                else f"{question.text} {question.answer if not drawing.text else ''}"
            )
        if number % 2 == 0:
            offered, errand = tools.wanted(chance, most=2)
            messages = (Message("user", (Text(errand.asked),)),)
            yield "".join(
                piece
                for piece in apply_chat_template(ChatRequest("tiny", messages, tools=tuple(offered)))
                if isinstance(piece, str)
            )
            yield errand.call
        asked, answer, _ = words.talk(chance)
        yield f"{asked} {answer}"


if __name__ == "__main__":
    write_foundation(Path(sys.argv[1]))
