"""The options that `ask` and `caption` share: provider, model, server address, sampling."""

import argparse
import sys
from collections.abc import Iterable

from llama_vision.backends import DEFAULT_TIMEOUT_S, create_backend
from llama_vision.core.backend import Backend
from llama_vision.core.messages import Document, Image, single_turn_messages
from llama_vision.core.request import DEFAULT_MAX_TOKENS, ChatRequest, SamplingParams
from llama_vision.images.settings import ImageSettings
from llama_vision.providers import PROVIDERS, Provider, find_provider
from llama_vision.providers.defaults import default_model, default_provider


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the shared options to a command."""
    parser.add_argument(
        "--provider", help=f"{', '.join(PROVIDERS)} (default: $LLAMA_VISION_PROVIDER, else local)"
    )
    parser.add_argument(
        "--model", help="a model's name (default: $LLAMA_VISION_MODEL, else the provider's first)"
    )
    parser.add_argument("--base-url", help="address of an OpenAI-compatible server, up to /chat/completions")
    parser.add_argument(
        "--api-key",
        help="the provider's key; a variable of the environment is safer: other users see arguments",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_TIMEOUT_S,
        help="seconds without a byte, default: %(default)g",
    )
    parser.add_argument("--deadline", type=float, help="seconds of a whole call, its retries included")
    parser.add_argument("--system", help="a system message before the prompt")
    parser.add_argument("--max-tokens", type=int, default=DEFAULT_MAX_TOKENS, help="default: %(default)s")
    parser.add_argument("--temperature", type=float, help="0 always takes the most probable token")


def select_model(
    options: argparse.Namespace, images: ImageSettings | None = None
) -> tuple[Provider, Backend, str]:
    """Return the provider that the options name, its backend, and the model's id there."""
    provider = find_provider(options.provider or default_provider(options.base_url))
    backend = create_backend(
        provider,
        api_key=options.api_key,
        base_url=options.base_url,
        timeout=options.timeout,
        deadline=options.deadline,
        images=images,
    )
    return provider, backend, provider.model_info(options.model or default_model(provider)).id


def build_request(
    options: argparse.Namespace, model: str, text: str, images: Iterable[Image | Document] = ()
) -> ChatRequest:
    """Make a request from the options, the user's text and images."""
    return ChatRequest(
        model=model,
        messages=single_turn_messages(text, images, options.system),
        sampling=SamplingParams(max_tokens=options.max_tokens, temperature=options.temperature),
    )


def print_loading(provider: Provider, model: str) -> None:
    """Tell on stderr that a model of this machine is being loaded, which takes seconds."""
    if provider.dialect is None:
        print(f"Loading {model} ...", file=sys.stderr, flush=True)
