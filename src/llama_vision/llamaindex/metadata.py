"""Metadata of the model, both as an `LLM` and as a `MultiModalLLM`."""

from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.multi_modal_llms.base import MultiModalLLMMetadata

_TOKENS_PER_IMAGE = 2125  # llama_index.core.base.llms.types.ImageBlock, whatever the model
_RESERVED_IMAGES = 8


class LlamaVisionMetadata(LLMMetadata, MultiModalLLMMetadata):  # pyright: ignore[reportIncompatibleVariableOverride] - one allows None
    """The fields of both: `system_role` of the one, `num_input_files` of the other."""


def context_window_with_images(context_window: int) -> int:
    """Return the context window in tokens as LlamaIndex counts them.

    LlamaIndex counts 2,125 tokens for each image. Llama's context holds one: the vision tokens are read through
    cross-attention. If the count exceeds the window, as the tiny model's, LlamaIndex silently drops the image. So a
    window that eight images don't fit into is enlarged by these.
    """
    room = _RESERVED_IMAGES * _TOKENS_PER_IMAGE
    return context_window if context_window >= room else context_window + room
