"""`llama-vision accept-license`: the step that Cloudflare wants once for each account."""

import argparse

from llama_vision.backends import create_backend
from llama_vision.core.errors import ConfigurationError
from llama_vision.core.messages import Message, Text
from llama_vision.core.request import ChatRequest
from llama_vision.providers import PROVIDERS, find_provider


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what `accept-license` takes."""
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
    """Show where the license is, ask, and accept it."""
    provider = find_provider(options.provider)
    if provider.license is None:
        raise ConfigurationError(f"{provider.title} asks for no license to be accepted.")
    from llama_vision.backends.http.backend import HttpBackend  # noqa: PLC0415 - loads httpx

    backend = create_backend(provider, base_url=options.base_url)
    if not isinstance(backend, HttpBackend):
        raise ConfigurationError(f"{provider.title} is not reached over HTTP.")
    print(f"The license: {provider.license.url}")
    if not (options.yes or _confirm()):
        raise ConfigurationError("The license was not accepted; nothing was sent.")
    request = ChatRequest(provider.models[0].id, (Message("user", (Text("Hello"),)),))
    backend.accept_license(request)
    reply = backend.complete(request)  # the answer to an agreement is not documented: this one tells
    print(f"Accepted: {reply.model or request.model} answers.")


def _confirm() -> bool:
    try:
        answer = input("Have you read it, and do you accept it? [y/N] ")
    except EOFError:  # nobody is there to ask
        return False
    return answer.strip().lower() in ("y", "yes")
