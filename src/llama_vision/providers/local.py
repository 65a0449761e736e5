"""The model on this machine, run with Transformers."""

from llama_vision.core.models import ModelInfo
from llama_vision.providers.provider import UNBOUNDED, ImageConstraints, Provider, Range

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
    image_rules=ImageConstraints(
        media_types=frozenset(
            {"image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff"}
        ),
        accepts_urls=False,
        allows_system_message=False,
    ),
    parameters={
        "max_tokens": UNBOUNDED,
        "stop": UNBOUNDED,
        "tools": UNBOUNDED,
        "tool_choice": UNBOUNDED,
        "response_format": UNBOUNDED,
        "seed": UNBOUNDED,
        "temperature": Range(0, 100),
        "top_p": Range(0, 1, exclusive_minimum=True),
        "min_p": Range(0, 1),
        "top_k": Range(1, 1_000_000),
        "repetition_penalty": Range(0, 100, exclusive_minimum=True),
    },
    docs="https://huggingface.co/docs/transformers/model_doc/mllama",
)
