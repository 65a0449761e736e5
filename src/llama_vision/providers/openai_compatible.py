"""Any endpoint that speaks chat completions; the user says where it is."""

from llama_vision.core.models import ModelInfo
from llama_vision.dialects.chat_completions.dialect import ChatCompletionsDialect
from llama_vision.providers.provider import Provider

OPENAI_COMPATIBLE = Provider(
    name="openai-compatible",
    title="Any OpenAI-compatible endpoint",
    # Not OPENAI_API_KEY: a key for one company would go to whatever host the address names.
    key_env=("LLAMA_VISION_API_KEY",),
    key_required=False,
    dialect=ChatCompletionsDialect(),
    models=(
        ModelInfo("llama-3.2-11b-vision", "meta-llama/Llama-3.2-11B-Vision-Instruct"),
        ModelInfo("llama-3.2-90b-vision", "meta-llama/Llama-3.2-90B-Vision-Instruct"),
    ),
    docs="https://platform.openai.com/docs/api-reference/chat/create",
)
