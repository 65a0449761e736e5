"""AIGateway: https://aigateway.sh/models/meta/llama-3.2-11b-vision-instruct."""

from llama_vision.core.models import ModelInfo, Price
from llama_vision.dialects.chat_completions.dialect import ChatCompletionsDialect
from llama_vision.providers.provider import UNBOUNDED, Provider

AIGATEWAY = Provider(
    name="aigateway",
    title="AIGateway",
    base_url="https://api.aigateway.sh/v1",
    key_env=("AIGATEWAY_API_KEY", "AIG_KEY"),
    key_page="https://aigateway.sh",
    # Its OpenAPI file knows no stream_options; usage comes in streams unasked.
    dialect=ChatCompletionsDialect(stream_options=False),
    models=(
        ModelInfo(
            "llama-3.2-11b-vision",
            "meta/llama-3.2-11b-vision-instruct",
            context_window=128_000,
            max_output_tokens=4096,
            response_formats=frozenset(),
            price=Price(0.049, 0.680),
        ),
    ),
    # All that its OpenAPI file has; no ranges are documented.
    parameters={"max_tokens": UNBOUNDED, "temperature": UNBOUNDED, "top_p": UNBOUNDED, "tools": UNBOUNDED},
    client_side_stop=True,
    docs="https://aigateway.sh/models/meta/llama-3.2-11b-vision-instruct",
)
