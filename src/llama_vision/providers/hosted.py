"""Other companies that host, or hosted, Llama 3.2 Vision behind chat completions: one record each.

Where a host's page gives no limit, the field keeps its default, and `parameters` is None: everything is sent.
"""

from llama_vision.core.call_options import CALL_OPTIONS
from llama_vision.core.models import ModelInfo
from llama_vision.dialects.chat_completions.dialect import ChatCompletionsDialect
from llama_vision.providers.provider import UNBOUNDED, ImageConstraints, Provider, Range

_JPEG_AND_PNG = frozenset({"image/jpeg", "image/png"})
_11B, _90B = "llama-3.2-11b-vision", "llama-3.2-90b-vision"

_DEDICATED = "Together serves it on dedicated endpoints only, which you start yourself."

TOGETHER = Provider(
    name="together",
    title="Together",
    # https://docs.together.ai/docs/openai-api-compatibility
    base_url="https://api.together.xyz/v1",
    key_env=("TOGETHER_API_KEY",),
    key_page="https://api.together.ai/settings/api-keys",
    dialect=ChatCompletionsDialect(),
    # https://together.ai/models/nim-llama-3-2-11b-vision-instruct: "available as a Together Dedicated Endpoints deployment".
    models=(
        ModelInfo(_11B, "meta-llama/Llama-3.2-11B-Vision-Instruct-Turbo", deprecation=_DEDICATED),
        ModelInfo(_90B, "meta-llama/Llama-3.2-90B-Vision-Instruct-Turbo", deprecation=_DEDICATED),
    ),
    docs="https://docs.together.ai/docs/vision-overview",
)

_DECOMMISSIONED = "Groq says that it has been decommissioned and is no longer supported."

GROQ = Provider(
    name="groq",
    title="Groq",
    base_url="https://api.groq.com/openai/v1",
    key_env=("GROQ_API_KEY",),
    key_page="https://console.groq.com/keys",
    dialect=ChatCompletionsDialect(),
    # https://console.groq.com/docs/vision, as long as it had these models: a context of 8,192.
    models=(
        ModelInfo(_11B, "llama-3.2-11b-vision-preview", context_window=8192, deprecation=_DECOMMISSIONED),
        ModelInfo(_90B, "llama-3.2-90b-vision-preview", context_window=8192, deprecation=_DECOMMISSIONED),
    ),
    # The same page: "only one image can be processed per request", a request with one in base64 may have 4 MB (413),
    # and "does not support system prompts and images in the same request" (400). At an address it may have 20 MB.
    image_rules=ImageConstraints(max_count=1, max_total_base64_chars=4_000_000, allows_system_message=False),
    docs="https://console.groq.com/docs/vision",
)

OPENROUTER = Provider(
    name="openrouter",
    title="OpenRouter",
    base_url="https://openrouter.ai/api/v1",
    key_env=("OPENROUTER_API_KEY",),
    key_page="https://openrouter.ai/settings/keys",
    dialect=ChatCompletionsDialect(),
    # Context, price and the number of images "vary per provider and per model" behind it; each reply tells its own cost.
    models=(
        ModelInfo(_11B, "meta-llama/llama-3.2-11b-vision-instruct"),
        ModelInfo(_90B, "meta-llama/llama-3.2-90b-vision-instruct"),
    ),
    # https://openrouter.ai/docs/features/multimodal/images: "image/png, image/jpeg, image/webp, image/gif", the default.
    image_rules=ImageConstraints(),
    # https://openrouter.ai/docs/parameters gives ranges, and takes "others" too.
    parameters=dict.fromkeys(CALL_OPTIONS, UNBOUNDED)
    | {
        "temperature": Range(0, 2),
        "top_p": Range(0, 1),
        "min_p": Range(0, 1),
        "top_k": Range(0, float("inf")),
        "frequency_penalty": Range(-2, 2),
        "presence_penalty": Range(-2, 2),
        "repetition_penalty": Range(0, 2),
    },
    docs="https://openrouter.ai/docs/features/multimodal/images",
)

FIREWORKS = Provider(
    name="fireworks",
    title="Fireworks",
    base_url="https://api.fireworks.ai/inference/v1",
    key_env=("FIREWORKS_API_KEY",),
    key_page="https://app.fireworks.ai/settings/users/api-keys",
    dialect=ChatCompletionsDialect(),
    # The schema is "enforced during generation": https://docs.fireworks.ai/structured-responses/structured-response-formatting
    models=(
        ModelInfo(_11B, "accounts/fireworks/models/llama-v3p2-11b-vision-instruct", enforces_schema=True),
        ModelInfo(_90B, "accounts/fireworks/models/llama-v3p2-90b-vision-instruct", enforces_schema=True),
    ),
    # https://docs.fireworks.ai/guides/querying-vision-language-models, "Known limitations": 30 images; "total base64-encoded
    # images must be less than 10MB"; .png, .jpg, .jpeg, .gif, .bmp, .tiff, .ppm. At an address each has to be smaller than
    # 5 MB and to arrive within 1.5 s. Images come before the words for these models, as everywhere: see `shaping`.
    image_rules=ImageConstraints(
        media_types=frozenset({"image/jpeg", "image/png", "image/gif", "image/bmp", "image/tiff"}),
        max_count=30,
        max_total_base64_chars=10_000_000,
    ),
    docs="https://docs.fireworks.ai/guides/querying-vision-language-models",
)

NVIDIA = Provider(
    name="nvidia",
    title="NVIDIA NIM",
    # Its older address, https://ai.api.nvidia.com/v1/gr/meta/<model>, can be given as base_url.
    base_url="https://integrate.api.nvidia.com/v1",
    key_env=("NVIDIA_API_KEY",),
    key_page="https://build.nvidia.com/settings/api-keys",
    dialect=ChatCompletionsDialect(),
    # "You can constrain the output to follow a particular JSON schema", among vision models with Llama 3.2 only:
    # https://docs.nvidia.com/nim/vision-language-models/latest/structured-generation.html
    models=(
        ModelInfo(_11B, "meta/llama-3.2-11b-vision-instruct", enforces_schema=True),
        ModelInfo(_90B, "meta/llama-3.2-90b-vision-instruct", enforces_schema=True),
    ),
    # Its API reference: "images can be PNG, JPG or JPEG". Its samples: `assert len(image_b64) < 180_000, "To upload larger
    # images, use the assets API"`, which is not built here. A second image is an error.
    image_rules=ImageConstraints(media_types=_JPEG_AND_PNG, max_count=1, max_base64_chars=180_000),
    docs="https://docs.nvidia.com/nim/vision-language-models/latest/examples/llama3-2/api.html",
)

HUGGINGFACE = Provider(
    name="huggingface",
    title="Hugging Face Inference Providers",
    base_url="https://router.huggingface.co/v1",
    key_env=("HF_TOKEN",),
    key_page="https://huggingface.co/settings/tokens",
    dialect=ChatCompletionsDialect(),
    # `model="meta-llama/Llama-3.2-11B-Vision-Instruct:<provider>"` chooses who answers; limits and errors are theirs.
    models=(ModelInfo(_11B, "meta-llama/Llama-3.2-11B-Vision-Instruct"),),
    docs="https://huggingface.co/docs/inference-providers/tasks/chat-completion",
)

_REPLACED = "SambaNova replaced it by Llama 4."

SAMBANOVA = Provider(
    name="sambanova",
    title="SambaNova",
    base_url="https://api.sambanova.ai/v1",
    key_env=("SAMBANOVA_API_KEY",),
    key_page="https://cloud.sambanova.ai/apis",
    dialect=ChatCompletionsDialect(),
    models=(
        ModelInfo(_11B, "Llama-3.2-11B-Vision-Instruct", deprecation=_REPLACED),
        ModelInfo(_90B, "Llama-3.2-90B-Vision-Instruct", deprecation=_REPLACED),
    ),
    # https://docs.sambanova.ai/docs/en/features/vision: "an encoded image file", base64 only.
    image_rules=ImageConstraints(accepts_urls=False),
    docs="https://docs.sambanova.ai/docs/en/features/vision",
)

_SUNSET = 'Hyperbolic\'s sunset notice: "All vision language models on this page are being discontinued."'

HYPERBOLIC = Provider(
    name="hyperbolic",
    title="Hyperbolic",
    base_url="https://api.hyperbolic.xyz/v1",
    key_env=("HYPERBOLIC_API_KEY",),
    key_page="https://app.hyperbolic.ai",
    dialect=ChatCompletionsDialect(),
    models=(
        ModelInfo(_11B, "meta-llama/Llama-3.2-11B-Vision-Instruct", deprecation=_SUNSET),
        ModelInfo(_90B, "meta-llama/Llama-3.2-90B-Vision-Instruct", deprecation=_SUNSET),
    ),
    # https://docs.hyperbolic.ai/inference/vlm-apis: base64 only, JPG and PNG, at most 2048 x 2048, one.
    image_rules=ImageConstraints(media_types=_JPEG_AND_PNG, accepts_urls=False, max_count=1, max_side=2048),
    docs="https://docs.hyperbolic.ai/inference/vlm-apis",
)

HOSTED = (TOGETHER, GROQ, OPENROUTER, FIREWORKS, NVIDIA, HUGGINGFACE, SAMBANOVA, HYPERBOLIC)
