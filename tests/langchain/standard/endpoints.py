"""The endpoints that go through LangChain's standard suites, and what they can't, each with the reason."""

from collections.abc import Callable, Mapping
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage

import llama_vision.backends.local
from llama_vision import Provider, find_provider
from llama_vision.langchain import ChatLlamaVision
from tests.contract.abilities import reason_against
from tests.emulator import ACCOUNT_ID, Emulator, completion

_NO_SOUND = "Llama 3.2 Vision takes text and images only"
_FROM_THE_WEB = "the suite downloads its PDF; tests/langchain/test_file_blocks.py sends one"


def left_out(provider: Provider) -> dict[str, str]:
    """Tell the standard tests that are no question to a provider; each of these is skipped, and no other."""
    reasons = dict.fromkeys(("test_pdf_inputs", "test_pdf_tool_message"), _FROM_THE_WEB)
    reasons["test_audio_inputs"] = _NO_SOUND
    if (reason := reason_against(provider, "image")) is not None:
        reasons |= dict.fromkeys(("test_image_inputs", "test_image_tool_message"), reason)
    if not (provider.supports("response_format") and "json_object" in provider.models[0].response_formats):
        reasons["test_json_mode"] = "has no JSON mode with this model"
    return reasons


class Endpoint:
    """One endpoint with our defaults, and with every flag of the suites on that its record allows.

    Attributes:
        provider: Its name.
        beyond: The tests that are beyond its model, each with the reason. They are run, and have to fail.
    """

    provider: ClassVar[str]
    beyond: ClassVar[Mapping[str, str]] = {}
    chat_model_class = ChatLlamaVision
    supports_anthropic_inputs = True
    enable_vcr_tests = True

    @classmethod
    def record(cls) -> Provider:
        return find_provider(cls.provider)

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"provider": self.provider}

    @property
    def supports_image_inputs(self) -> bool:
        return "test_image_inputs" not in left_out(self.record())

    @property
    def supports_image_urls(self) -> bool:
        """What a provider does not fetch itself is fetched here."""
        return self.supports_image_inputs

    @property
    def supports_image_tool_message(self) -> bool:
        return "test_image_tool_message" not in left_out(self.record())

    @property
    def supports_json_mode(self) -> bool:
        return "test_json_mode" not in left_out(self.record())

    @property
    def model_override_value(self) -> str:
        """The provider's last model by its own id; by default the first one is asked, by our name for it."""
        return self.record().models[-1].id


class Hosted(Endpoint):
    """An endpoint that is emulated on this machine."""

    emulator: Emulator

    @pytest.fixture(autouse=True)
    def _emulated(self, request: pytest.FixtureRequest, emulator_of: Callable[[str], Emulator]) -> None:
        self.reach(emulator_of(self.provider), replayed=request.node.get_closest_marker("vcr") is not None)

    def reach(self, emulator: Emulator, *, replayed: bool = False) -> None:
        """Ask this emulator from now on; a replay comes from the address that the cassettes have."""
        self.emulator = emulator
        self._base_url = f"http://127.0.0.1{emulator.dialect.base_path}" if replayed else emulator.base_url

    @property
    def chat_model_params(self) -> dict[str, Any]:
        account = {"account_id": ACCOUNT_ID} if self.record().account_env else {}
        return {
            **super().chat_model_params,
            "base_url": self._base_url,
            "api_key": self.emulator.api_key,
            **account,
        }

    @property
    def supported_usage_metadata_details(self) -> dict[str, list[str]]:
        """Nothing else is told: a Llama has no sound, thinks aloud, and its prompts are remembered unasked."""
        return {"invoke": ["cache_read_input"], "stream": ["cache_read_input"]}

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        """Ask what the provider remembers the beginning of."""
        counts = {"prompt_tokens": 20, "completion_tokens": 2, "total_tokens": 22}
        remembered = {"prompt_tokens_details": {"cached_tokens": 16}}
        self.emulator.script(completion("Hello again!", usage={**counts, **remembered}))
        model = self.chat_model_class(**self.chat_model_params)
        chunks = model.stream("Hi") if stream else [model.invoke("Hi")]
        return reduce(lambda first, second: first + second, chunks)


class DeepInfra(Hosted):
    provider = "deepinfra"


class AimlApi(Hosted):
    provider = "aimlapi"


class AIGateway(Hosted):
    provider = "aigateway"


class Cloudflare(Hosted):
    provider = "cloudflare"


class CloudflareOpenAI(Hosted):
    provider = "cloudflare-openai"


class OpenAICompatible(Hosted):
    provider = "openai-compatible"


class Local(Endpoint):
    """The tiny model, with its real weights."""

    provider = "local"
    beyond: ClassVar[Mapping[str, str]] = {
        "test_unicode_tool_call_integration": "the tiny model has not learned to say these letters",
        "test_json_mode": "the tiny model is kept to JSON, and does not understand which keys the question wants",
    }

    @pytest.fixture(autouse=True)
    def _beyond(self, request: pytest.FixtureRequest) -> None:
        if reason := self.beyond.get(request.node.originalname):
            request.applymarker(
                pytest.mark.xfail(reason=reason, strict=True, raises=(AssertionError, OutputParserException))
            )

    @property
    def model_override_value(self) -> str:
        """The folder that holds the weights: the larger models are not here."""
        return str(Path(llama_vision.backends.local.__file__).parent / "tiny")


ENDPOINTS: tuple[type[Endpoint], ...] = (
    DeepInfra,
    AimlApi,
    AIGateway,
    Cloudflare,
    CloudflareOpenAI,
    OpenAICompatible,
    Local,
)
