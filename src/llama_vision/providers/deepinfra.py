"""DeepInfra: https://deepinfra.com/meta-llama/Llama-3.2-11B-Vision-Instruct/api."""

from llama_vision.core.models import ModelInfo
from llama_vision.dialects.chat_completions.dialect import ChatCompletionsDialect
from llama_vision.providers.provider import UNBOUNDED, ImageConstraints, Provider, Range

_MAX_OUTPUT = 16_384  # a hard cap of the API

DEEPINFRA = Provider(
    name="deepinfra",
    title="DeepInfra",
    base_url="https://api.deepinfra.com/v1/openai",
    key_env=("DEEPINFRA_TOKEN", "DEEPINFRA_API_KEY", "DEEPINFRA_API_TOKEN"),
    key_page="https://deepinfra.com/dash/api_keys",
    dialect=ChatCompletionsDialect(),
    # Its JSON mode is guaranteed to give JSON (https://deepinfra.com/docs/advanced/json_mode); of schemas it says nothing.
    # The model page names no price that could be used for an estimate ($0.00); each reply tells its own cost.
    models=(
        ModelInfo(
            "llama-3.2-11b-vision",
            "meta-llama/Llama-3.2-11B-Vision-Instruct",
            context_window=131_072,
            max_output_tokens=_MAX_OUTPUT,
        ),
        ModelInfo(
            "llama-3.2-90b-vision",
            "meta-llama/Llama-3.2-90B-Vision-Instruct",
            context_window=32_768,
            max_output_tokens=_MAX_OUTPUT,
        ),
    ),
    # https://deepinfra.com/docs: "jpg, png, webp", at most 20 MB.
    image_rules=ImageConstraints(
        media_types=frozenset({"image/jpeg", "image/png", "image/webp"}), max_bytes=20_000_000
    ),
    # OpenAIChatCompletionsIn of its OpenAPI file.
    parameters={
        "max_tokens": UNBOUNDED,
        "tools": UNBOUNDED,
        "tool_choice": UNBOUNDED,
        "response_format": UNBOUNDED,
        "stop": Range(0, 16),
        "seed": UNBOUNDED,
        "temperature": Range(0, 2),
        "top_p": Range(0, 1, exclusive_minimum=True),
        "min_p": Range(0, 1),
        "top_k": Range(0, 999),
        "frequency_penalty": Range(-2, 2),
        "presence_penalty": Range(-2, 2),
        "repetition_penalty": Range(0.01, 5),
    },
    docs="https://deepinfra.com/meta-llama/Llama-3.2-11B-Vision-Instruct/api",
)
