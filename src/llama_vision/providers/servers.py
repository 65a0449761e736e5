"""Servers that people run themselves, where each listens by default, and any other OpenAI-compatible endpoint.

`base_url` sets another address, of which the path may be left out. None asks for a key unless it was started with one: pass that as `api_key`.
"""

from llama_vision.core.models import llama_vision_models
from llama_vision.dialects.chat_completions.dialect import ChatCompletionsDialect
from llama_vision.dialects.chat_completions.usage import CostField, UsageFormat
from llama_vision.dialects.error_bodies import OUT_OF_CREDITS, UNKNOWN_ARCHITECTURE, ErrorParser
from llama_vision.dialects.workers_ai.dialect import NEURON_COST
from llama_vision.dialects.workers_ai.error_codes import ERROR_CODES
from llama_vision.providers.hosted import DEEPINFRA_UNPAID, JPEG_PNG, JPEG_PNG_WEBP
from llama_vision.providers.local import LOCAL
from llama_vision.providers.provider import ImageConstraints, Provider, unbounded

# Ollama 0.30 (June 2026) refuses the architecture, `mllama`: https://github.com/ollama/ollama/issues/16490. vLLM 0.11 removed
# MllamaForConditionalGeneration: https://github.com/vllm-project/vllm/issues/27198.
_LAST_VERSION = "{} is the last version of {} that runs it: use `local` or `sglang`."

OLLAMA = Provider(
    name="ollama",
    title="Ollama",
    base_url="http://localhost:11434/v1",
    base_url_env=("OLLAMA_HOST",),
    base_path="/v1",
    start_command="ollama serve",
    key_required=False,
    # "llama3.2-vision does not support tools": https://github.com/ollama/ollama/issues/8345
    # Schemas become grammars of llama.cpp: "enforce a JSON schema on model responses", https://docs.ollama.com/capabilities/structured-outputs
    models=llama_vision_models(
        "llama3.2-vision:{}b",
        tools=False,
        enforces_schema=True,
        deprecation=_LAST_VERSION.format("0.24", "Ollama"),
    ),
    # openai/openai.go: "image URLs are not currently supported", and jpeg, jpg, png, webp.
    # "vision model only supports a single image per message": https://github.com/ollama/ollama/issues/9020
    image_rules=ImageConstraints(
        media_types=JPEG_PNG_WEBP, accepts_urls=False, max_count=1, count_per_message=True
    ),
    # "Supported request fields" of its page; tool_choice is there as not supported.
    parameters=unbounded(
        *("max_tokens", "temperature", "top_p", "frequency_penalty", "presence_penalty"),
        *("seed", "stop", "tools", "response_format"),
    ),
    docs="https://docs.ollama.com/api/openai-compatibility",
)

VLLM = Provider(
    name="vllm",
    title="vLLM",
    base_url="http://localhost:8000/v1",
    base_path="/v1",
    start_command="vllm serve meta-llama/Llama-3.2-11B-Vision-Instruct",
    key_required=False,
    # "The output will follow the JSON schema": https://docs.vllm.ai/en/latest/features/structured_outputs/
    models=llama_vision_models(enforces_schema=True, deprecation=_LAST_VERSION.format("0.10", "vLLM")),
    # The model's own template raised "Prompting with images is incompatible with system messages" until December 2024, and
    # files from before are in use: https://github.com/vllm-project/vllm/issues/8854. How many images a request may have is
    # set at the start: `--limit-mm-per-prompt`. Tools need `--enable-auto-tool-choice --tool-call-parser llama3_json`.
    image_rules=ImageConstraints(allows_system_message=False),
    docs="https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
)

SGLANG = Provider(
    name="sglang",
    title="SGLang",
    base_url="http://localhost:30000/v1",
    base_path="/v1",
    start_command="python -m sglang.launch_server --model-path meta-llama/Llama-3.2-11B-Vision-Instruct",
    key_required=False,
    # Its own chat template for the model is named `llama_3_vision`. Schemas are "guaranteed to follow the specified constraints",
    # with any model: its page on structured outputs.
    models=llama_vision_models(enforces_schema=True),
    docs="https://docs.sglang.io/docs/basic_usage/openai_api_vision",
)

LM_STUDIO = Provider(
    name="lmstudio",
    title="LM Studio",
    base_url="http://localhost:1234/v1",
    base_path="/v1",
    start_command="lms server start",
    key_required=False,
    # The id is that of the file on the machine: `model=` takes what `lms ls` shows. Of formats it takes json_schema only:
    # "'response_format.type' must be 'json_schema' or 'text'". llama.cpp's grammars or Outlines enforce it:
    # https://lmstudio.ai/docs/advanced/structured-output
    models=llama_vision_models(
        "llama-3.2-{}b-vision", response_formats=frozenset({"json_schema"}), enforces_schema=True
    ),
    # Addresses get "'url' field must be a base64 encoded image", and so does WebP:
    # https://github.com/lmstudio-ai/lmstudio-bug-tracker/issues/1752
    image_rules=ImageConstraints(media_types=JPEG_PNG, accepts_urls=False),
    # "Supported payload parameters" of its page, and what its pages on tools and structured output add.
    parameters=unbounded(
        *("max_tokens", "temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty"),
        *("seed", "stop", "tools", "tool_choice", "response_format"),
    ),
    docs="https://lmstudio.ai/docs/developer/openai-compat/chat-completions",
)

LLAMA_VISION_SERVER = Provider(
    name="llama-vision",
    title="`llama-vision serve`",
    base_url="http://localhost:8484/v1",
    base_path="/v1",
    start_command="llama-vision serve",
    key_env=("LLAMA_VISION_SERVER_API_KEY",),
    key_required=False,
    models=LOCAL.models,
    # The server prepares images as the local model does: it orders messages and fetches URLs itself, public ones only.
    image_rules=ImageConstraints(media_types=LOCAL.image_rules.media_types),
    parameters=LOCAL.parameters,
    parses_text_calls=True,
    docs=LOCAL.docs,
)

OPENAI_COMPATIBLE = Provider(
    name="openai-compatible",
    title="Any OpenAI-compatible endpoint",
    # Not OPENAI_API_KEY: a key for one company would go to whatever host the address names.
    key_env=("LLAMA_VISION_API_KEY",),
    key_required=False,
    # It may be any host, or a proxy before one: all formats of usage and errors in `hosted` are understood.
    dialect=ChatCompletionsDialect(
        usage=UsageFormat(
            paths=(("x_groq", "usage"), ("meta", "usage")),
            cost_fields=(CostField("cost"), CostField("estimated_cost"), CostField("usd_spent"), NEURON_COST),
            cost_headers=(CostField("x-cost-cents", usd_per_unit=0.01), CostField("x-aimlapi-usd-spent")),
        ),
        errors=ErrorParser(rules=(OUT_OF_CREDITS, DEEPINFRA_UNPAID, UNKNOWN_ARCHITECTURE), codes=ERROR_CODES),
    ),
    models=llama_vision_models(),
    docs="https://platform.openai.com/docs/api-reference/chat/create",
)

SERVERS = (LLAMA_VISION_SERVER, OLLAMA, VLLM, SGLANG, LM_STUDIO)
