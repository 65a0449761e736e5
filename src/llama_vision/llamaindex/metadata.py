"""What LlamaIndex is told about a model, both as an LLM and as a multi-modal one."""

from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.multi_modal_llms.base import MultiModalLLMMetadata


class LlamaVisionMetadata(LLMMetadata, MultiModalLLMMetadata):  # pyright: ignore[reportIncompatibleVariableOverride] - one allows None
    """Has the fields of both: `system_role` of the one, `num_input_files` of the other."""
