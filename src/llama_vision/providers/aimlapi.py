"""AI/ML API: https://docs.aimlapi.com/api-references/text-models-llm/meta/llama-3.2-11b-vision-instruct-turbo."""

from llama_vision.core.models import ModelInfo
from llama_vision.dialects.chat_completions.dialect import ChatCompletionsDialect
from llama_vision.providers.provider import UNBOUNDED, Provider, Range

_RETIRED = "AI/ML API lists it as deprecated and no longer supported since September 2025."

AIMLAPI = Provider(
    name="aimlapi",
    title="AI/ML API",
    base_url="https://api.aimlapi.com/v1",
    key_env=("AIMLAPI_API_KEY", "AIML_API_KEY", "AIMLAPI_KEY"),
    key_page="https://aimlapi.com/app/keys",
    dialect=ChatCompletionsDialect(),
    # The present schema of neither model has tools or a role `tool`; that of the 11B has no response_format.
    models=(
        ModelInfo(
            "llama-3.2-11b-vision",
            "meta-llama/Llama-3.2-11B-Vision-Instruct-Turbo",
            tools=False,
            response_formats=frozenset(),
            deprecation=_RETIRED,
        ),
        ModelInfo(
            "llama-3.2-90b-vision",
            "meta-llama/Llama-3.2-90B-Vision-Instruct-Turbo",
            tools=False,
            deprecation=_RETIRED,
        ),
    ),
    parameters={
        "max_tokens": UNBOUNDED,
        "response_format": UNBOUNDED,
        "stop": Range(0, 4),
        "temperature": Range(0, 2),
        "top_p": Range(0.01, 1),
        "min_p": Range(0.001, 0.999),
        "top_k": UNBOUNDED,
        "seed": Range(1, float("inf")),
        "frequency_penalty": Range(-2, 2),
        "presence_penalty": Range(-2, 2),
        "repetition_penalty": UNBOUNDED,
    },
    docs="https://docs.aimlapi.com/api-references/text-models-llm/meta/llama-3.2-11b-vision-instruct-turbo",
)
