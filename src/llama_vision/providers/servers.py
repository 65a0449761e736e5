"""Servers that people run themselves, where each listens by default; `base_url` says where else.

None asks for a key unless it was started with one: give that as `api_key`.
"""

from llama_vision.core.models import ModelInfo
from llama_vision.dialects.chat_completions.dialect import ChatCompletionsDialect
from llama_vision.providers.provider import UNBOUNDED, ImageConstraints, Provider

_11B, _90B = "llama-3.2-11b-vision", "llama-3.2-90b-vision"
# vLLM: "the output will follow the JSON schema", https://docs.vllm.ai/en/latest/features/structured_outputs/. SGLang:
# "guaranteed to follow the specified constraints", its page on structured outputs. Both do so with any model.
_FROM_THE_HUB = (
    ModelInfo(_11B, "meta-llama/Llama-3.2-11B-Vision-Instruct", enforces_schema=True),
    ModelInfo(_90B, "meta-llama/Llama-3.2-90B-Vision-Instruct", enforces_schema=True),
)

OLLAMA = Provider(
    name="ollama",
    title="Ollama",
    base_url="http://localhost:11434/v1",
    key_required=False,
    dialect=ChatCompletionsDialect(),
    # "llama3.2-vision does not support tools": https://github.com/ollama/ollama/issues/8345
    # Schemas become grammars of llama.cpp: "enforce a JSON schema on model responses", https://docs.ollama.com/capabilities/structured-outputs
    models=(
        ModelInfo(_11B, "llama3.2-vision:11b", tools=False, enforces_schema=True),
        ModelInfo(_90B, "llama3.2-vision:90b", tools=False, enforces_schema=True),
    ),
    # openai/openai.go: "image URLs are not currently supported", and jpeg, jpg, png, webp.
    # "vision model only supports a single image per message": https://github.com/ollama/ollama/issues/9020
    image_rules=ImageConstraints(
        media_types=frozenset({"image/jpeg", "image/png", "image/webp"}), accepts_urls=False, max_count=1
    ),
    # "Supported request fields" of its page; tool_choice is there as not supported.
    parameters=dict.fromkeys(
        (
            "max_tokens",
            "temperature",
            "top_p",
            "frequency_penalty",
            "presence_penalty",
            "seed",
            "stop",
            "tools",
            "response_format",
        ),
        UNBOUNDED,
    ),
    docs="https://docs.ollama.com/api/openai-compatibility",
)

VLLM = Provider(
    name="vllm",
    title="vLLM",
    base_url="http://localhost:8000/v1",
    key_required=False,
    dialect=ChatCompletionsDialect(),
    models=_FROM_THE_HUB,
    # The model's own template raised "Prompting with images is incompatible with system messages" until December 2024, and
    # files from before are in use: https://github.com/vllm-project/vllm/issues/8854. How many images a request may have is
    # said at the start: `--limit-mm-per-prompt`. Tools need `--enable-auto-tool-choice --tool-call-parser llama3_json`.
    image_rules=ImageConstraints(allows_system_message=False),
    docs="https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
)

SGLANG = Provider(
    name="sglang",
    title="SGLang",
    base_url="http://localhost:30000/v1",
    key_required=False,
    dialect=ChatCompletionsDialect(),
    # Its own chat template for the model is named `llama_3_vision`.
    models=_FROM_THE_HUB,
    docs="https://docs.sglang.io/docs/basic_usage/openai_api_vision",
)

LM_STUDIO = Provider(
    name="lmstudio",
    title="LM Studio",
    base_url="http://localhost:1234/v1",
    key_required=False,
    dialect=ChatCompletionsDialect(),
    # The id is that of the file on the machine: `model=` takes what `lms ls` shows. Of formats it takes json_schema only:
    # "'response_format.type' must be 'json_schema' or 'text'". It is kept to by llama.cpp's grammars or by Outlines:
    # https://lmstudio.ai/docs/advanced/structured-output
    models=tuple(
        ModelInfo(name, name, response_formats=frozenset({"json_schema"}), enforces_schema=True)
        for name in (_11B, _90B)
    ),
    # Addresses get "'url' field must be a base64 encoded image", and so does WebP:
    # https://github.com/lmstudio-ai/lmstudio-bug-tracker/issues/1752
    image_rules=ImageConstraints(media_types=frozenset({"image/jpeg", "image/png"}), accepts_urls=False),
    # "Supported payload parameters" of its page, and what its pages on tools and structured output add.
    parameters=dict.fromkeys(
        (
            "max_tokens",
            "temperature",
            "top_p",
            "top_k",
            "frequency_penalty",
            "presence_penalty",
            "seed",
            "stop",
            "tools",
            "tool_choice",
            "response_format",
        ),
        UNBOUNDED,
    ),
    docs="https://lmstudio.ai/docs/developer/openai-compat/chat-completions",
)

SERVERS = (OLLAMA, VLLM, SGLANG, LM_STUDIO)
