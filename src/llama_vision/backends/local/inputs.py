"""From a prompt to the tensors a model takes."""

import io
from collections.abc import Sequence
from typing import Any

import PIL.Image
import torch
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)

from llama_vision.backends.local.loading import LoadedModel
from llama_vision.backends.local.prompt import IMAGE_TOKEN, Control, Piece
from llama_vision.core.errors import ImageError, LocalModelError
from llama_vision.core.messages import Image


def model_inputs(loaded: LoadedModel, pieces: Sequence[Piece]) -> dict[str, torch.Tensor]:
    """Turn a prompt into tensors on the model's device.

    Args:
        loaded: Whose tokenizer and preprocessing to use.
        pieces: From `prompt.render`.

    Returns:
        What `generate` takes: `input_ids` (1, tokens), `attention_mask`, and with pictures also `pixel_values`
        (1, pictures, tiles, 3, height, width), `aspect_ratio_ids`, `aspect_ratio_mask` and `cross_attention_mask`.

    Raises:
        ImageError: A picture can't be decoded.

    """
    ids = [token for piece in pieces for token in _token_ids(loaded, piece)]
    tensors: dict[str, Any] = {
        "input_ids": torch.tensor([ids]),
        "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
    }
    pictures = [piece for piece in pieces if isinstance(piece, Image)]
    if pictures:
        opened = [_open(picture, number) for number, picture in enumerate(pictures, start=1)]
        tensors |= _picture_tensors(loaded, opened, ids)
    return {name: tensor.to(loaded.device) for name, tensor in tensors.items()}


def _token_ids(loaded: LoadedModel, piece: Piece) -> list[int]:
    if isinstance(piece, str):
        return loaded.tokenizer.encode(piece, add_special_tokens=False).ids
    return [_control_id(loaded, piece if isinstance(piece, Control) else IMAGE_TOKEN)]


def _control_id(loaded: LoadedModel, control: Control) -> int:
    token_id = loaded.tokenizer.token_to_id(control.token)
    if token_id is None:
        raise LocalModelError(f"The model's tokenizer has no {control.token}: it is no Llama 3.2 Vision.")
    return token_id


def _picture_tensors(loaded: LoadedModel, pictures: list[PIL.Image.Image], ids: list[int]) -> dict[str, Any]:
    features = loaded.image_processor(images=[pictures], return_tensors="pt")
    mask = convert_sparse_cross_attention_mask_to_dense(
        [get_cross_attention_token_mask(ids, _control_id(loaded, IMAGE_TOKEN))],
        num_tiles=features["num_tiles"],
        max_num_tiles=loaded.image_processor.max_image_tiles,
        length=len(ids),
    )
    return {
        "pixel_values": features["pixel_values"].to(loaded.network.dtype),
        "aspect_ratio_ids": features["aspect_ratio_ids"],
        "aspect_ratio_mask": features["aspect_ratio_mask"],
        "cross_attention_mask": torch.as_tensor(mask),
    }


def _open(picture: Image, number: int) -> PIL.Image.Image:
    try:
        opened = PIL.Image.open(io.BytesIO(picture.data or b""))
        opened.load()
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise ImageError(f"Image {number} ({picture.media_type}) can't be decoded: {error}") from error
    return opened
