"""`llama-vision providers`: who can be asked, with what, and whether a key is there."""

import argparse
import os

from llama_vision.providers import PROVIDERS, Provider


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what `providers` takes."""
    parser.description = (
        "List providers, their models, the variables looked at for a key, and whether one is set."
    )
    parser.add_argument("--markdown", action="store_true", help="print the table of the README")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the list."""
    if options.markdown:
        print(markdown_table())
        return
    for provider in PROVIDERS.values():
        print(f"{provider.name}: {provider.title}")
        for model in provider.models:
            known_as = f" -> {model.id}" if model.id != model.name else ""
            print(f"  {model.name}{known_as}")
        print(f"  key: {_key_state(provider)}")
        print(f"  {provider.docs}")


def markdown_table() -> str:
    """Make the README's table of providers from their records."""
    rows = ["| `provider=` | who | models | key | pictures |", "| --- | --- | --- | --- | --- |"]
    rows += [
        f"| `{provider.name}` | [{provider.title}]({provider.docs}) | {_models(provider)} | {_keys(provider)} "
        f"| {_pictures(provider)} |"
        for provider in PROVIDERS.values()
    ]
    return "\n".join(rows)


def _key_state(provider: Provider) -> str:
    if not provider.key_env:
        return "none needed"
    found = next((name for name in provider.key_env if os.environ.get(name, "").strip()), None)
    names = ", ".join(provider.key_env)
    if found:
        return f"found in {found} (looked at {names})"
    return f"none found in {names}" + (
        "" if provider.key_required else "; needed only where the endpoint wants one"
    )


def _models(provider: Provider) -> str:
    return "<br>".join(f"`{model.name}`" for model in provider.models)


def _keys(provider: Provider) -> str:
    if not provider.key_env:
        return "none"
    names = " or ".join(f"`{name}`" for name in provider.key_env)
    return names if provider.key_required else f"{names}, if it wants one"


def _pictures(provider: Provider) -> str:
    rules = provider.image_rules
    kinds = ", ".join(sorted(kind.removeprefix("image/") for kind in rules.media_types))
    size = f", up to {rules.max_bytes / 1e6:.0f} MB" if rules.max_bytes else ""
    return f"{kinds}{size}" + (", or by URL" if rules.urls else "")
