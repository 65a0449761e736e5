"""What LlamaIndex is told about a model, both as an LLM and as a multi-modal one."""

from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.multi_modal_llms.base import MultiModalLLMMetadata

_TOKENS_PER_IMAGE = 2125  # llama_index.core.base.llms.types.ImageBlock, whatever the model
_RESERVED_IMAGES = 8


class LlamaVisionMetadata(LLMMetadata, MultiModalLLMMetadata):  # pyright: ignore[reportIncompatibleVariableOverride] - one allows None
    """Has the fields of both: `system_role` of the one, `num_input_files` of the other."""


def context_window_with_images(context_window: int) -> int:
    """Say how large a window is in the tokens that LlamaIndex counts.

    It counts 2,125 for each image, of which a Llama's context holds one: the rest goes past it, by cross-attention.
    Where that looks like too much, as it does for the tiny model, LlamaIndex leaves the image out without a word.

    Args:
        context_window: The model's own, in tokens.

    Returns:
        Tokens: the same for a window that eight images fit into, else with room for these beside the words.

    """
    room = _RESERVED_IMAGES * _TOKENS_PER_IMAGE
    return context_window if context_window >= room else context_window + room
