"""The model on this machine, run with Transformers."""

from llama_vision.core.models import ModelInfo
from llama_vision.providers.record import ANY, ImageRules, Provider, Range

LOCAL = Provider(
    name="local",
    title="The local model",
    dialect=None,
    key_required=False,
    models=(
        ModelInfo("tiny", "tiny", context_window=2048, enforces_schema=True),
        ModelInfo("llama-3.2-11b-vision", "meta-llama/Llama-3.2-11B-Vision-Instruct", enforces_schema=True),
        ModelInfo("llama-3.2-90b-vision", "meta-llama/Llama-3.2-90B-Vision-Instruct", enforces_schema=True),
    ),
    image_rules=ImageRules(
        media_types=frozenset(
            {"image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff"}
        ),
        urls=False,
        with_system=False,
    ),
    parameters={
        "max_tokens": ANY,
        "stop": ANY,
        "tools": ANY,
        "tool_choice": ANY,
        "response_format": ANY,
        "seed": ANY,
        "temperature": Range(0, 100),
        "top_p": Range(0, 1, low_excluded=True),
        "min_p": Range(0, 1),
        "top_k": Range(1, 1_000_000),
        "repetition_penalty": Range(0, 100, low_excluded=True),
    },
    docs="https://huggingface.co/docs/transformers/model_doc/mllama",
)
