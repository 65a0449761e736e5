"""`llama-vision providers`: providers, their models, and which keys are set."""

import argparse
import json
from collections.abc import Callable, Iterator

from llama_vision.core.models import CONTEXT_WINDOW, ModelInfo
from llama_vision.providers import PROVIDERS, ImageConstraints, Provider
from llama_vision.providers.credentials import describe_key, describe_variables, find_api_key

_DEPRECATED = "†"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `providers`."""
    parser.description = "List providers, their models, the variables looked at for a key or an account, and whether one is set."
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/providers.md")
    parser.add_argument("--json", action="store_true", help="print one JSON array, for a program")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the list."""
    if options.markdown:
        print(markdown_table())
        return
    if options.json:
        print(json.dumps([_as_json(provider) for provider in PROVIDERS.values()], ensure_ascii=False))
        return
    for provider in PROVIDERS.values():
        print(f"{provider.name}: {provider.title}")
        for model in provider.models:
            provider_id = f" -> {model.id}" if model.id != model.name else ""
            deprecated = f" (may no longer answer: {model.deprecation})" if model.deprecation else ""
            print(f"  {model.name}{provider_id}{deprecated}")
        print(f"  key: {describe_key(provider, verbose=True)}")
        if provider.account_env:
            print(f"  account: {describe_variables(provider.account_env, verbose=True)}")
        print(f"  {provider.docs}")


def _as_json(provider: Provider) -> dict[str, object]:
    """Return what there is to know of a provider; of a key only whether one is set."""
    return {
        "name": provider.name,
        "title": provider.title,
        "base_url": provider.base_url,
        "models": [
            {
                "name": model.name,
                "id": model.id,
                "context_window": model.context_window,
                "max_output_tokens": model.max_output_tokens,
                "input_usd_per_million": model.price.input_per_million if model.price else None,
                "output_usd_per_million": model.price.output_per_million if model.price else None,
                "deprecation": model.deprecation or None,
            }
            for model in provider.models
        ],
        "key_variables": provider.key_env,
        "key_required": provider.key_required,
        "key_found": find_api_key(provider) is not None,
        "account_variables": provider.account_env,
        "batch_discount": provider.batch and provider.batch.discount,
        "docs": provider.docs,
    }


def markdown_table() -> str:
    """Format the table of docs/providers.md from the records, with notes on deprecated models."""
    rows = [
        "| `provider=` | models | tokens | $ per million, in / out | key | images |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    rows += [
        f"| [`{provider.name}`]({provider.docs}) | {_models(provider)} | {_by_model(provider, _tokens)} "
        f"| {_by_model(provider, _price)} | {_variables(provider)} | {', '.join(_image_rules(provider.image_rules))} |"
        for provider in PROVIDERS.values()
    ]
    return "\n".join([*rows, "", f"{_DEPRECATED} It may no longer answer. {' '.join(_notes())}"])


def _size(model: ModelInfo) -> str:
    """Shorten `llama-3.2-11b-vision` to `11B`."""
    shortened = model.name.removeprefix("llama-3.2-").removesuffix("-vision")
    return model.name if shortened == model.name else shortened.upper()


def _models(provider: Provider) -> str:
    return ", ".join(_size(model) + (_DEPRECATED if model.deprecation else "") for model in provider.models)


def _by_model(provider: Provider, format_cell: Callable[[ModelInfo], str]) -> str:
    """Format a cell, once where it is the same for all models."""
    cells = {_size(model): format_cell(model) for model in provider.models}
    if len(set(cells.values())) == 1:
        return next(iter(cells.values()))
    return "<br>".join(f"{size}: {cell}" for size, cell in cells.items() if cell)


def _tokens(model: ModelInfo) -> str:
    context = f"{model.context_window:,}" if model.context_window != CONTEXT_WINDOW else ""
    reply = f"reply {model.max_output_tokens:,}" if model.max_output_tokens else ""
    return ", ".join(filter(None, (context, reply)))


def _price(model: ModelInfo) -> str:
    return f"{model.price.input_per_million:g} / {model.price.output_per_million:g}" if model.price else ""


def _variables(provider: Provider) -> str:
    if not provider.key_env:
        return "none"
    keys = "<br>".join(f"`{name}`" for name in provider.key_env)
    if not provider.key_required:
        keys += ", if it wants one"
    accounts = " or ".join(f"`{name}`" for name in provider.account_env)
    return f"{keys}<br>account: {accounts}" if accounts else keys


def _image_rules(rules: ImageConstraints) -> Iterator[str]:
    if rules.max_count == 0:
        yield "none"
        return
    if rules.max_count is not None:
        count = f"{rules.max_count} at most" if rules.max_count > 1 else "one"
        yield f"{count} a message" if rules.count_per_message else count
    yield " ".join(sorted(kind.removeprefix("image/") for kind in rules.media_types))
    if rules.max_bytes is not None:
        yield f"up to {rules.max_bytes / 1e6:g} MB"
    if rules.max_base64_chars is not None:
        yield f"up to {rules.max_base64_chars * 3 / 4e3:g} kB"
    if rules.max_total_base64_chars is not None:
        yield f"up to {rules.max_total_base64_chars * 3 / 4e6:g} MB together"
    if rules.min_side > 1:
        yield f"sides from {rules.min_side} px"
    if rules.max_side is not None:
        yield f"sides up to {rules.max_side} px"
    if rules.accepts_urls:
        yield "or by URL"


def _notes() -> Iterator[str]:
    """Yield the reason of each deprecation, once per provider."""
    for provider in PROVIDERS.values():
        for reason in dict.fromkeys(model.deprecation for model in provider.models if model.deprecation):
            yield f"`{provider.name}`: {reason}"
