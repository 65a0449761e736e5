"""The options that `ask` and `caption` share: provider, model, server address, sampling."""

import argparse
import sys
from collections.abc import Iterable

from llama_vision.backends import DEFAULT_TIMEOUT_S, Limits, create_backend
from llama_vision.core.backend import Backend
from llama_vision.core.messages import Document, Image, single_turn_messages
from llama_vision.core.request import DEFAULT_MAX_TOKENS, ChatRequest, SamplingParams
from llama_vision.images.settings import ImageSettings
from llama_vision.providers import PROVIDERS, Provider
from llama_vision.providers.defaults import default_model, default_provider
from llama_vision.providers.route import Route, first_provider, resolve_provider


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the shared options to a command."""
    parser.add_argument(
        "--provider",
        help=f"{', '.join(PROVIDERS)} (default: $LLAMA_VISION_PROVIDER, else local); several, as in "
        "deepinfra,cloudflare,local, stand in for each other",
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
    parser.add_argument(
        "--max-cost", type=float, metavar="USD", help="send nothing that could cost more in all"
    )
    parser.add_argument(
        "--requests-per-minute", type=int, metavar="N", help="the maximum; further calls wait"
    )
    parser.add_argument("--temperature", type=float, help="0 always takes the most probable token")


def select_model(
    options: argparse.Namespace, images: ImageSettings | None = None
) -> tuple[Provider | Route, Backend, str]:
    """Return the provider or the providers that the options name, their backend, and the model's id at the first."""
    names = (options.provider or default_provider(options.base_url)).split(",")
    provider = resolve_provider([name.strip() for name in names] if len(names) > 1 else names[0])
    first = first_provider(provider)
    limits = Limits(max_cost_usd=options.max_cost, requests_per_minute=options.requests_per_minute)
    backend = create_backend(
        provider,
        api_key=options.api_key,
        base_url=options.base_url,
        timeout=options.timeout,
        deadline=options.deadline,
        images=images,
        limits=limits,
    )
    return provider, backend, first.model_info(options.model or default_model(first)).id


def build_request(
    options: argparse.Namespace, model: str, text: str, images: Iterable[Image | Document] = ()
) -> ChatRequest:
    """Make a request from the options, the user's text and images."""
    return ChatRequest(
        model=model,
        messages=single_turn_messages(text, images, options.system),
        sampling=SamplingParams(max_tokens=options.max_tokens, temperature=options.temperature),
    )


def print_loading(provider: Provider | Route, model: str) -> None:
    """Tell on stderr that a model of this machine is being loaded, which takes seconds."""
    if first_provider(provider).dialect is None:
        print(f"Loading {model} ...", file=sys.stderr, flush=True)
