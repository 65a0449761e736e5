"""Companies that host, or hosted, Llama 3.2 Vision: one record each.

Where a host's pages give no limit, the field keeps its default; where they list no parameters, all are sent.
"""

from dataclasses import replace

from llama_vision.core.call_options import CALL_OPTIONS
from llama_vision.core.errors import InsufficientCreditsError
from llama_vision.core.models import LLAMA_11B, LLAMA_90B, Price, llama_vision_models
from llama_vision.dialects.chat_completions.dialect import ChatCompletionsDialect
from llama_vision.dialects.chat_completions.usage import CostField, UsageFormat
from llama_vision.dialects.error_bodies import OUT_OF_CREDITS, ErrorParser, ErrorRule
from llama_vision.dialects.workers_ai.dialect import (
    LICENSE_AGREEMENT,
    NEURON_COST,
    RUN_PATH,
    WorkersAiDialect,
)
from llama_vision.dialects.workers_ai.error_codes import ERROR_CODES
from llama_vision.providers.provider import (
    BatchApi,
    ImageConstraints,
    LicenseAgreement,
    Provider,
    Range,
    unbounded,
)

JPEG_PNG = frozenset({"image/jpeg", "image/png"})
JPEG_PNG_WEBP = JPEG_PNG | {"image/webp"}

# Those of OpenAI's API, which several hosts document.
_OPENAI_RANGES = {
    "temperature": Range(0, 2),
    "frequency_penalty": Range(-2, 2),
    "presence_penalty": Range(-2, 2),
}

# DeepInfra says so with a 402 or a 400.
DEEPINFRA_UNPAID = ErrorRule(
    400, "inference prohibited, please enter a payment method", InsufficientCreditsError
)

DEEPINFRA = Provider(
    name="deepinfra",
    title="DeepInfra",
    base_url="https://api.deepinfra.com/v1/openai",
    key_env=("DEEPINFRA_TOKEN", "DEEPINFRA_API_KEY", "DEEPINFRA_API_TOKEN"),
    key_page="https://deepinfra.com/dash/api_keys",
    dialect=ChatCompletionsDialect(
        # US dollars in `usage.estimated_cost`: the sample reply of its API page.
        usage=UsageFormat(cost_fields=(CostField("estimated_cost"),)),
        errors=ErrorParser(rules=(OUT_OF_CREDITS, DEEPINFRA_UNPAID)),
    ),
    # Its JSON mode is guaranteed to give JSON (https://deepinfra.com/docs/advanced/json_mode); of schemas it says nothing.
    # 16,384 tokens are a hard cap of the API. Prices of 2026-11-28; its documents of 2026-07-22 list the 11B.
    models=(
        replace(LLAMA_11B, max_output_tokens=16_384, price=Price(0.055, 0.055)),
        replace(LLAMA_90B, context_window=32_768, max_output_tokens=16_384, price=Price(0.35, 0.40)),
    ),
    # https://deepinfra.com/docs: "jpg, png, webp", at most 20 MB.
    image_rules=ImageConstraints(media_types=JPEG_PNG_WEBP, max_bytes=20_000_000),
    # OpenAIChatCompletionsIn of its OpenAPI file.
    parameters=unbounded("max_tokens", "tools", "tool_choice", "response_format", "seed")
    | _OPENAI_RANGES
    | {
        "stop": Range(0, 16),
        "top_p": Range(0, 1, exclusive_minimum=True),
        "min_p": Range(0, 1),
        "top_k": Range(0, 999),
        "repetition_penalty": Range(0.01, 5),
    },
    # https://docs.deepinfra.com/batch/introduction, "Pricing" and "Rate limits" (2026-11-28).
    batch=BatchApi(discount=0.2, max_requests=50_000, max_file_bytes=200_000_000),
    docs="https://deepinfra.com/meta-llama/Llama-3.2-11B-Vision-Instruct/api",
)

# The present schema of neither model has tools or a role `tool`; that of the 11B has no response_format.
_AIMLAPI_11B, _AIMLAPI_90B = llama_vision_models(
    "meta-llama/Llama-3.2-{}B-Vision-Instruct-Turbo",
    tools=False,
    deprecation="AI/ML API lists it as deprecated and no longer supported since September 2025.",
)

AIMLAPI = Provider(
    name="aimlapi",
    title="AI/ML API",
    base_url="https://api.aimlapi.com/v1",
    key_env=("AIMLAPI_API_KEY", "AIML_API_KEY", "AIMLAPI_KEY"),
    key_page="https://aimlapi.com/app/keys",
    # US dollars in `meta.usage.usd_spent` and in a header: https://docs.aimlapi.com/capabilities/request-tracing-and-cost
    dialect=ChatCompletionsDialect(
        usage=UsageFormat(
            paths=(("meta", "usage"),),
            cost_fields=(CostField("usd_spent"),),
            cost_headers=(CostField("x-aimlapi-usd-spent"),),
        )
    ),
    models=(replace(_AIMLAPI_11B, response_formats=frozenset()), _AIMLAPI_90B),
    parameters=unbounded("max_tokens", "response_format", "top_k", "repetition_penalty")
    | _OPENAI_RANGES
    | {
        "stop": Range(0, 4),
        "top_p": Range(0.01, 1),
        "min_p": Range(0.001, 0.999),
        "seed": Range(1, float("inf")),
    },
    docs="https://docs.aimlapi.com/api-references/text-models-llm/meta/llama-3.2-11b-vision-instruct-turbo",
)

AIGATEWAY = Provider(
    name="aigateway",
    title="AIGateway",
    base_url="https://api.aigateway.sh/v1",
    key_env=("AIGATEWAY_API_KEY", "AIG_KEY"),
    key_page="https://aigateway.sh",
    dialect=ChatCompletionsDialect(
        # Its OpenAPI file knows no stream_options; usage comes in streams unasked.
        stream_options=False,
        # The same file: US dollars in `usage.cost`, and X-Cost-Cents.
        usage=UsageFormat(cost_headers=(CostField("x-cost-cents", usd_per_unit=0.01),)),
    ),
    models=llama_vision_models(
        "meta/llama-3.2-{}b-vision-instruct",
        context_window=128_000,
        max_output_tokens=4096,
        response_formats=frozenset(),
        price=Price(0.049, 0.680),
    )[:1],  # the 11B only
    # All that its OpenAPI file has; no ranges are documented.
    parameters=unbounded("max_tokens", "temperature", "top_p", "tools"),
    client_side_stop=True,
    # https://aigateway.sh/docs/batch: "50% off", "up to 100 requests per batch (MVP cap)" (2026-11-28).
    batch=BatchApi(discount=0.5, max_requests=100),
    docs="https://aigateway.sh/models/meta/llama-3.2-11b-vision-instruct",
)

_CLOUDFLARE_PARAMETERS = unbounded("max_tokens", "tools") | {
    "temperature": Range(0, 5),
    "top_p": Range(0, 2),
    "top_k": Range(1, 50),
    "seed": Range(1, 9_999_999_999),
    "repetition_penalty": Range(0, 2),
    "frequency_penalty": Range(0, 2),
    "presence_penalty": Range(0, 2),
}

CLOUDFLARE = Provider(
    name="cloudflare",
    title="Cloudflare Workers AI",
    base_url="https://api.cloudflare.com/client/v4",
    key_env=(
        "CLOUDFLARE_AUTH_TOKEN",
        "CLOUDFLARE_API_TOKEN",
        "CLOUDFLARE_API_KEY",
        "CF_AI_API_TOKEN",
        "CF_API_TOKEN",
    ),
    key_page="https://dash.cloudflare.com/profile/api-tokens",
    account_env=("CLOUDFLARE_ACCOUNT_ID", "CF_ACCOUNT_ID"),
    dialect=WorkersAiDialect(),
    # The list price per token is an estimate where a reply reports no neurons.
    # Workers AI's cut of 2026-05-30 left this model. JSON mode does not list it: https://developers.cloudflare.com/workers-ai/features/json-mode/
    models=llama_vision_models(
        "@cf/meta/llama-3.2-{}b-vision-instruct",
        context_window=128_000,
        response_formats=frozenset(),
        price=Price(0.049, 0.68),
    )[:1],  # the 11B only
    image_rules=ImageConstraints(media_types=JPEG_PNG_WEBP, accepts_urls=False, max_count=1, min_side=10),
    parameters=_CLOUDFLARE_PARAMETERS,
    client_side_stop=True,
    license=LicenseAgreement(
        url="https://github.com/meta-llama/llama-models/blob/main/models/llama3_2/LICENSE",
        path=RUN_PATH,
        body=LICENSE_AGREEMENT,
    ),
    docs="https://developers.cloudflare.com/workers-ai/models/llama-3.2-11b-vision-instruct/",
)

CLOUDFLARE_OPENAI = replace(
    CLOUDFLARE,
    name="cloudflare-openai",
    title="Cloudflare Workers AI, OpenAI-compatible",
    dialect=ChatCompletionsDialect(
        path="/accounts/{account}/ai/v1/chat/completions",
        stream_options=False,  # usage comes in its streams unasked
        # Its release notes of 2026-02-17 say that null is taken beside tool calls; five users had a 400 for it with other
        # models, from 2025-12 to 2026-09. They are followed: a string is taken either way.
        null_content=False,
        usage=UsageFormat(cost_fields=(NEURON_COST,)),
        errors=ErrorParser(codes=ERROR_CODES),
    ),
    image_rules=ImageConstraints(
        max_count=0,
        alternative="This route answers images with nothing or an error: use provider='cloudflare', its native one.",
    ),
    parameters=_CLOUDFLARE_PARAMETERS | unbounded("tool_choice"),
    docs="https://developers.cloudflare.com/workers-ai/configuration/open-ai-compatibility/",
)

TOGETHER = Provider(
    name="together",
    title="Together",
    # https://docs.together.ai/docs/openai-api-compatibility
    base_url="https://api.together.xyz/v1",
    key_env=("TOGETHER_API_KEY",),
    key_page="https://api.together.ai/settings/api-keys",
    # https://together.ai/models/nim-llama-3-2-11b-vision-instruct: "available as a Together Dedicated Endpoints deployment".
    models=llama_vision_models(
        "meta-llama/Llama-3.2-{}B-Vision-Instruct-Turbo",
        deprecation="Together serves it on dedicated endpoints only, which you start yourself.",
    ),
    docs="https://docs.together.ai/docs/vision-overview",
)

GROQ = Provider(
    name="groq",
    title="Groq",
    base_url="https://api.groq.com/openai/v1",
    key_env=("GROQ_API_KEY",),
    key_page="https://console.groq.com/keys",
    # Streams report usage in `x_groq.usage`.
    dialect=ChatCompletionsDialect(usage=UsageFormat(paths=(("x_groq", "usage"),))),
    # https://console.groq.com/docs/vision, as long as it had these models: a context of 8,192.
    models=llama_vision_models(
        "llama-3.2-{}b-vision-preview",
        context_window=8192,
        deprecation="Groq says that it has been decommissioned and is no longer supported.",
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
    # Context, price and the number of images "vary per provider and per model" behind it; each reply reports `usage.cost`.
    # models.dev lists the 11B only, at $0.345 (2026-07-02).
    models=llama_vision_models("meta-llama/llama-3.2-{}b-vision-instruct", price=Price(0.345, 0.345))[:1],
    # https://openrouter.ai/docs/features/multimodal/images: "image/png, image/jpeg, image/webp, image/gif", the default.
    image_rules=ImageConstraints(),
    # https://openrouter.ai/docs/parameters gives ranges, and takes "others" too.
    parameters=unbounded(*CALL_OPTIONS)
    | _OPENAI_RANGES
    | {
        "top_p": Range(0, 1),
        "min_p": Range(0, 1),
        "top_k": Range(0, float("inf")),
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
    # The schema is "enforced during generation": https://docs.fireworks.ai/structured-responses/structured-response-formatting
    models=llama_vision_models(
        "accounts/fireworks/models/llama-v3p2-{}b-vision-instruct", enforces_schema=True
    ),
    # https://docs.fireworks.ai/guides/querying-vision-language-models, "Known limitations": 30 images; "total base64-encoded
    # images must be less than 10MB"; .png, .jpg, .jpeg, .gif, .bmp, .tiff, .ppm. At an address each has to be smaller than
    # 5 MB and to arrive within 1.5 s. Images come before the text for these models, as everywhere: see `adaptation.message_order`.
    image_rules=ImageConstraints(
        media_types=JPEG_PNG | {"image/gif", "image/bmp", "image/tiff"},
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
    # "You can constrain the output to follow a particular JSON schema", among vision models with Llama 3.2 only:
    # https://docs.nvidia.com/nim/vision-language-models/latest/structured-generation.html
    # "Following Meta's guidance, function calling is not supported", nor system messages beside images:
    # https://docs.nvidia.com/nim/vision-language-models/1.1.0/release-notes.html (2026-11-28)
    models=llama_vision_models("meta/llama-3.2-{}b-vision-instruct", tools=False, enforces_schema=True),
    # Its API reference: "images can be PNG, JPG or JPEG". Its samples: `assert len(image_b64) < 180_000, "To upload larger
    # images, use the assets API"`, which is not built here. A second image is an error.
    image_rules=ImageConstraints(
        media_types=JPEG_PNG, max_count=1, max_base64_chars=180_000, allows_system_message=False
    ),
    docs="https://docs.nvidia.com/nim/vision-language-models/latest/examples/llama3-2/api.html",
)

HUGGINGFACE = Provider(
    name="huggingface",
    title="Hugging Face Inference Providers",
    base_url="https://router.huggingface.co/v1",
    key_env=("HF_TOKEN",),
    key_page="https://huggingface.co/settings/tokens",
    # `model="meta-llama/Llama-3.2-11B-Vision-Instruct:<provider>"` selects the host; limits and errors are that host's.
    models=(LLAMA_11B,),
    docs="https://huggingface.co/docs/inference-providers/tasks/chat-completion",
)

SAMBANOVA = Provider(
    name="sambanova",
    title="SambaNova",
    base_url="https://api.sambanova.ai/v1",
    key_env=("SAMBANOVA_API_KEY",),
    key_page="https://cloud.sambanova.ai/apis",
    models=llama_vision_models(
        "Llama-3.2-{}B-Vision-Instruct", deprecation="SambaNova replaced it by Llama 4."
    ),
    # https://docs.sambanova.ai/docs/en/features/vision: "an encoded image file", base64 only.
    image_rules=ImageConstraints(accepts_urls=False),
    docs="https://docs.sambanova.ai/docs/en/features/vision",
)

HYPERBOLIC = Provider(
    name="hyperbolic",
    title="Hyperbolic",
    base_url="https://api.hyperbolic.xyz/v1",
    key_env=("HYPERBOLIC_API_KEY",),
    key_page="https://app.hyperbolic.ai",
    models=llama_vision_models(
        deprecation='Hyperbolic\'s sunset notice: "All vision language models on this page are being discontinued."'
    ),
    # https://docs.hyperbolic.ai/inference/vlm-apis: base64 only, JPG and PNG, at most 2048 x 2048, one.
    image_rules=ImageConstraints(media_types=JPEG_PNG, accepts_urls=False, max_count=1, max_side=2048),
    docs="https://docs.hyperbolic.ai/inference/vlm-apis",
)

AZURE = Provider(
    name="azure",
    title="Azure AI Foundry",
    # The v1 API has one address for a resource, and `model` is the name of a deployment:
    # https://learn.microsoft.com/azure/ai-foundry/how-to/model-inference-to-openai-migration (2026-11-28)
    base_url_example="https://RESOURCE.openai.azure.com/openai/v1",
    key_env=("AZURE_API_KEY", "AZURE_OPENAI_API_KEY"),
    key_page="https://ai.azure.com",
    # https://learn.microsoft.com/azure/ai-foundry/openai/reference, "Authentication".
    key_header="api-key",
    key_prefix="",
    # https://github.com/MicrosoftDocs/azure-ai-docs, concepts-model-retirement-schedule-content.md of 2026-07-07.
    models=llama_vision_models(
        "Llama-3.2-{}B-Vision-Instruct", deprecation="Azure retired it on 2026-06-13."
    ),
    docs="https://learn.microsoft.com/azure/ai-foundry/foundry-models/concepts/endpoints",
)

GITHUB_MODELS = Provider(
    name="github-models",
    title="GitHub Models",
    # https://docs.github.com/en/rest/models/inference: the token needs `models: read`; ids are {publisher}/{model_name}.
    base_url="https://models.github.ai/inference",
    key_env=("GITHUB_TOKEN",),
    key_page="https://github.com/settings/personal-access-tokens",
    models=llama_vision_models(
        "meta/Llama-3.2-{}B-Vision-Instruct",
        # "GitHub Models ... retired on July 30, 2026": https://github.com/orgs/community/discussions/203602
        deprecation="GitHub Models was retired on 2026-07-30.",
    ),
    docs="https://docs.github.com/en/rest/models/inference",
)

VERCEL = Provider(
    name="vercel",
    title="Vercel AI Gateway",
    # https://vercel.com/docs/ai-gateway/sdks-and-apis/openai-chat-completions (2026-10-07)
    base_url="https://ai-gateway.vercel.sh/v1",
    key_env=("AI_GATEWAY_API_KEY", "VERCEL_OIDC_TOKEN"),
    key_page="https://vercel.com/docs/ai-gateway",
    # https://vercel.com/ai-gateway/models/llama-3.2-11b/providers names one host, Amazon Bedrock, at $0.16 in and out. models.dev
    # has the 90B at $0.72 (2026-07-02). Bedrock ended all Llama 3.2 on 2026-07-07.
    models=tuple(
        replace(model, price=Price(price, price))
        for model, price in zip(
            llama_vision_models(
                "meta/llama-3.2-{}b",
                context_window=128_000,
                deprecation="Amazon Bedrock, the host behind it, ended Llama 3.2 on 2026-07-07.",
            ),
            (0.16, 0.72),
            strict=True,
        )
    ),
    docs="https://vercel.com/docs/ai-gateway/sdks-and-apis/openai-chat-completions",
)

IO_NET = Provider(
    name="io-net",
    title="io.net Intelligence",
    base_url="https://api.intelligence.io.solutions/api/v1",
    key_env=("IOINTELLIGENCE_API_KEY", "IO_INTELLIGENCE_API_KEY"),
    key_page="https://ai.io.net",
    # models.dev, providers/io-net: the 90B only, 16,000 tokens of which the reply has 4,096, $0.35 in and $0.40 out (2026-07-02).
    models=llama_vision_models(context_window=16_000, max_output_tokens=4096, price=Price(0.35, 0.40))[
        1:
    ],  # the 90B only
    docs="https://io.net/docs/guides/intelligence/io-intelligence",
)

INFERENCE_NET = Provider(
    name="inference-net",
    title="Inference.net",
    base_url="https://api.inference.net/v1",
    key_env=("INFERENCE_API_KEY",),
    key_page="https://inference.net",
    # models.dev, providers/inference: 16,000 tokens, $0.055 in and out (2026-07-02). Others write the id as
    # meta-llama/llama-3.2-11b-instruct/fp-16 (https://www.lava.so/docs/gateway/providers/inference): `model` takes it.
    models=llama_vision_models(
        "meta/llama-3.2-{}b-vision-instruct", context_window=16_000, price=Price(0.055, 0.055)
    )[:1],  # the 11B only
    docs="https://inference.net/models",
)

HOSTED = (
    *(DEEPINFRA, AIMLAPI, AIGATEWAY, CLOUDFLARE, CLOUDFLARE_OPENAI),
    *(TOGETHER, GROQ, OPENROUTER, FIREWORKS, NVIDIA, HUGGINGFACE, SAMBANOVA, HYPERBOLIC),
    *(AZURE, GITHUB_MODELS, VERCEL, IO_NET, INFERENCE_NET),
)
