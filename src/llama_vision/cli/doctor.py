"""`llama-vision doctor`: what is installed, set and reachable here, one line each, with what to do."""

import argparse
import importlib.metadata
import importlib.util
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from llama_vision.core.errors import ConfigurationError, LlamaVisionError
from llama_vision.providers import PROVIDERS, Provider, find_provider
from llama_vision.providers.base_url import resolve_base_url
from llama_vision.providers.credentials import describe_key, resolve_account_id, resolve_api_key
from llama_vision.version import __version__

_EXTRAS = {
    "langchain": ("langchain-core",),
    "llamaindex": ("llama-index-core",),
    "local": ("torch", "transformers", "tokenizers", "safetensors", "llguidance"),
    "serve": ("starlette", "uvicorn", "prometheus-client"),
    "aiohttp": ("httpx-aiohttp",),
    "ray": ("ray",),
    "jupyter": ("ipywidgets", "matplotlib"),
    "otel": ("opentelemetry-api",),
}
"""The distributions that tell whether an extra is installed."""

_BYTES_OF_11B = {"bfloat16": 22e9, "int8": 11e9, "int4": 8e9}
"""Weights of the 11B."""

_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        status: `ok`; `note` for what is missing but may not be needed; `problem` for what will not work.
        text: What was found, and what to do.
    """

    status: Literal["ok", "note", "problem"]
    text: str

    def __str__(self) -> str:
        return f"{self.status:<7} {self.text}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `doctor`."""
    parser.description = (
        "Report versions, extras, keys, devices and memory, one line each, with what to do. No key is printed, and "
        "nothing is sent unless --reach asks for it. Exit code 1 where there is a problem."
    )
    parser.add_argument(
        "--reach",
        nargs="*",
        metavar="PROVIDER",
        help="connect to these providers too, without a key; without names to those whose key is set",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the report.

    Raises:
        LlamaVisionError: There is a problem.
    """
    num_problems = 0
    for finding in find(options.reach):
        print(finding, flush=True)
        num_problems += finding.status == "problem"
    if num_problems:
        raise LlamaVisionError(f"{num_problems} of these lines need something done.")


def find(reach: Sequence[str] | None = None) -> Iterator[Finding]:
    """Look at this machine.

    Args:
        reach: Providers to connect to; empty for those whose key is set; None connects to none.

    Yields:
        One line after the other.

    Raises:
        UnknownProviderError: There is no provider of a name in `reach`.
    """
    named = [find_provider(name) for name in reach or ()]
    yield Finding(
        "ok",
        f"llama-vision {__version__}, Python {platform.python_version()}, {platform.platform()}",
    )
    yield from _extras()
    yield from _keys()
    yield from _devices()
    if reach is not None:
        for provider in named or [provider for provider in PROVIDERS.values() if _is_configured(provider)]:
            yield _reach(provider)


def _extras() -> Iterator[Finding]:
    for extra, distributions in _EXTRAS.items():
        versions = {name: _version(name) for name in distributions}
        missing = [name for name, version in versions.items() if version is None]
        if missing:
            yield Finding(
                "note",
                f"{extra}: {', '.join(missing)} not installed. If you need it: pip install 'llama-vision[{extra}]'",
            )
        else:
            found = ", ".join(f"{name} {version}" for name, version in versions.items())
            yield Finding("ok", f"{extra}: {found}")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_configured(provider: Provider) -> bool:
    return describe_key(provider).startswith("found")


def _keys() -> Iterator[Finding]:
    found = [provider for provider in PROVIDERS.values() if _is_configured(provider)]
    for provider in found:
        try:
            resolve_api_key(provider, None)
            resolve_account_id(provider, None)
        except ConfigurationError as error:
            yield Finding("problem", f"{provider.name}: key {describe_key(provider)}, but: {error}")
        else:
            yield Finding("ok", f"{provider.name}: key {describe_key(provider)}")
    missing = [
        provider.name for provider in PROVIDERS.values() if provider.key_required and provider not in found
    ]
    if missing:
        yield Finding(
            "note", f"no key for {', '.join(missing)}. `llama-vision providers` lists the variables."
        )


def _devices() -> Iterator[Finding]:
    from llama_vision.backends.local.devices import find_devices, system_memory  # noqa: PLC0415 - for who asks

    if importlib.util.find_spec("torch") is None:
        memory = system_memory()
        has = "" if memory is None else f" {_gigabytes(memory)} of memory."
        yield Finding("note", f"local model: torch is not installed, so no model runs here.{has}")
        return
    try:
        devices = find_devices()
    except Exception as error:  # noqa: BLE001 - a broken installation raises anything
        yield Finding("problem", f"local model: torch can't be imported: {error}. Install it again.")
        return
    for device in devices:
        memory = device.memory_bytes
        if memory is None:
            yield Finding("note", f"{device.name}: {device.title}, of unknown memory")
            continue
        text = f"{device.name}: {device.title}, {_gigabytes(memory)}. {_what_fits(memory)}"
        yield Finding("ok", text)


def _what_fits(memory: float) -> str:
    """Say how the 11B fits, with a tenth more than its weights for what it computes."""
    if memory > 1.1 * _BYTES_OF_11B["bfloat16"]:
        return "The 11B fits."
    for quantization in ("int8", "int4"):
        if memory > 1.1 * _BYTES_OF_11B[quantization]:
            return f"The 11B fits with local_settings={{'quantization': {quantization!r}}}."
    return "Too small for the 11B: the tiny model runs here; take a hosted provider for the 11B."


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.0f} GB"


def _reach(provider: Provider) -> Finding:
    """Connect to a provider without a key: any answer will do."""
    import httpx  # noqa: PLC0415 - loads 50 ms that only this takes

    try:
        address = resolve_base_url(provider, None)
    except ConfigurationError as error:
        return Finding("problem", f"{provider.name}: {error}")
    if address is None:
        return Finding("ok", f"{provider.name}: runs in this process")
    try:
        response = httpx.get(address, timeout=_TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        command = f" Start it with `{provider.start_command}`." if provider.start_command else ""
        return Finding(
            "problem",
            f"{provider.name}: no connection to {httpx.URL(address).host}: {error or type(error).__name__}.{command}"
            " Check the network, and HTTPS_PROXY behind a proxy.",
        )
    return Finding(
        "ok", f"{provider.name}: {httpx.URL(address).host} answers (status {response.status_code})"
    )
