"""The model on this machine, run with Transformers."""

from llama_vision.core.models import ModelInfo, llama_vision_models
from llama_vision.providers.provider import ImageConstraints, Provider, Range, unbounded

LOCAL = Provider(
    name="local",
    title="The local model",
    dialect=None,
    key_required=False,
    models=(
        ModelInfo("tiny", "tiny", context_window=2048, enforces_schema=True),
        *llama_vision_models(enforces_schema=True),
    ),
    image_rules=ImageConstraints(
        media_types=ImageConstraints().media_types | {"image/bmp", "image/tiff"},
        decoded_by_backend=True,
        accepts_urls=False,
        allows_system_message=False,
    ),
    parameters=unbounded("max_tokens", "stop", "tools", "tool_choice", "response_format", "seed")
    | {
        "temperature": Range(0, 100),
        "top_p": Range(0, 1, exclusive_minimum=True),
        "min_p": Range(0, 1),
        "top_k": Range(1, 1_000_000),
        "repetition_penalty": Range(0, 100, exclusive_minimum=True),
    },
    strict_by_default=True,
    docs="https://huggingface.co/docs/transformers/model_doc/mllama",
)
