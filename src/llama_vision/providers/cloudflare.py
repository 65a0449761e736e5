"""Cloudflare Workers AI, natively and by its OpenAI-compatible route; it has the 11B only.

https://developers.cloudflare.com/workers-ai/models/llama-3.2-11b-vision-instruct/
"""

from dataclasses import replace

from llama_vision.core.models import ModelInfo, Price
from llama_vision.dialects.chat_completions.dialect import ChatCompletionsDialect
from llama_vision.dialects.workers_ai.dialect import LICENSE_AGREEMENT, RUN_PATH, WorkersAiDialect
from llama_vision.providers.provider import UNBOUNDED, ImageConstraints, LicenseAgreement, Provider, Range

_PARAMETERS = {
    "max_tokens": UNBOUNDED,
    "tools": UNBOUNDED,
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
    # JSON mode does not list this model: https://developers.cloudflare.com/workers-ai/features/json-mode/
    models=(
        ModelInfo(
            "llama-3.2-11b-vision",
            "@cf/meta/llama-3.2-11b-vision-instruct",
            context_window=128_000,
            response_formats=frozenset(),
            price=Price(0.049, 0.68),
        ),
    ),
    image_rules=ImageConstraints(
        media_types=frozenset({"image/jpeg", "image/png", "image/webp"}),
        accepts_urls=False,
        max_count=1,
        min_side=10,
    ),
    parameters=_PARAMETERS,
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
    # Usage comes in its streams unasked.
    dialect=ChatCompletionsDialect(path="/accounts/{account}/ai/v1/chat/completions", stream_options=False),
    image_rules=ImageConstraints(
        max_count=0,
        alternative="This route answers images with nothing or an error: use provider='cloudflare', its native one.",
    ),
    parameters={**_PARAMETERS, "tool_choice": UNBOUNDED},
    docs="https://developers.cloudflare.com/workers-ai/configuration/open-ai-compatibility/",
)
