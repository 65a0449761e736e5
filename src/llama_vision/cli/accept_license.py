"""`llama-vision accept-license`: accepts the model's license, which Cloudflare asks for once per account."""

import argparse

from llama_vision.backends import create_backend
from llama_vision.core.errors import ConfigurationError
from llama_vision.core.messages import Message, Text
from llama_vision.core.request import ChatRequest
from llama_vision.providers import PROVIDERS, find_provider


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `accept-license`."""
    names = ", ".join(name for name, provider in PROVIDERS.items() if provider.license)
    parser.description = (
        "Accept the license of Llama 3.2 Vision on behalf of your account, where a provider asks for it. Its use policy "
        "grants no rights to the vision models to people living in, or companies based in, the European Union."
    )
    parser.add_argument("provider", help=names)
    parser.add_argument("--base-url", help="in place of the provider's own address")
    parser.add_argument("--yes", action="store_true", help="don't ask whether you have read it")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the license's address, ask, and accept it."""
    provider = find_provider(options.provider)
    if provider.license is None:
        raise ConfigurationError(f"{provider.title} asks for no license to be accepted.")
    from llama_vision.backends.http.backend import HttpBackend  # noqa: PLC0415 - loads httpx

    backend = create_backend(provider, base_url=options.base_url)
    backend = getattr(backend, "wrapped", backend)  # where OpenTelemetry is set up
    if not isinstance(backend, HttpBackend):
        raise ConfigurationError(f"{provider.title} is not reached over HTTP.")
    print(f"The license: {provider.license.url}")
    if not (options.yes or _confirm()):
        raise ConfigurationError("The license was not accepted; nothing was sent.")
    request = ChatRequest(provider.models[0].id, (Message("user", (Text("Hello"),)),))
    backend.accept_license(request)
    # The agreement's own response is not documented; a real reply proves it.
    reply = backend.complete(request)
    print(f"Accepted: {reply.model or request.model} answers.")


def _confirm() -> bool:
    try:
        answer = input("Have you read it, and do you accept it? [y/N] ")
    except EOFError:  # no terminal
        return False
    return answer.strip().lower() in ("y", "yes")
