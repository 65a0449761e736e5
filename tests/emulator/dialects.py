"""Which dialect is spoken by which of our providers."""

from collections.abc import Callable

from tests.emulator.aigateway import AIGateway
from tests.emulator.aimlapi import AimlApi
from tests.emulator.cloudflare import Cloudflare
from tests.emulator.deepinfra import DeepInfra
from tests.emulator.dialect import Dialect

DIALECTS: dict[str, Callable[[], Dialect]] = {
    "deepinfra": DeepInfra,
    "openai-compatible": DeepInfra,
    "aimlapi": AimlApi,
    "aigateway": AIGateway,
    "cloudflare": Cloudflare,
    "cloudflare-openai": Cloudflare,
}
