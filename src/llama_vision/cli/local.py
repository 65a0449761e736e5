"""`llama-vision local check`: what a model takes on this machine, before it is loaded."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.device_map import describe_modules
from llama_vision.backends.local.devices import free_memory
from llama_vision.core.errors import LocalModelError

if TYPE_CHECKING:
    from llama_vision.backends.local.memory_plan import DeviceMemory, MemoryPlan

_GB = 1e9
_SPLIT_HEADER = ("device", "weights", "activations", "KV cache", "modules")
_HEADER = ("quantization", "weights", "activations", "KV cache", "total", "room for", "fits")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `local`."""
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="say what a model takes on this machine")
    check.description = (
        "Say what a model takes on this machine, and with which quantization it fits. Only its configuration and headers are "
        "read; of a model on the Hugging Face hub no weights are downloaded."
    )
    check.add_argument(
        "model",
        metavar="MODEL",
        help="tiny, a folder, a .gguf file, ollama:TAG, or an id on the Hugging Face hub",
    )
    defaults = LocalSettings()
    check.add_argument("--device", help="such as cpu or cuda:1; default: the fastest")
    check.add_argument("--device-map", choices=["auto"], help="fill all GPUs, and the CPU as the last resort")
    check.add_argument(
        "--max-batch-size", type=int, default=defaults.max_batch_size, help="default: %(default)s"
    )
    check.add_argument("--max-model-len", type=int, help="tokens of a request; default: 4096, or fewer")
    check.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print a table, and what `quantization="auto"` takes; raise LocalModelError where nothing fits."""
    # These load torch.
    from llama_vision.backends.local.checkpoints.find import describe_checkpoint  # noqa: PLC0415 - as said
    from llama_vision.backends.local.memory_plan import advice, plan_memory  # noqa: PLC0415 - as said
    from llama_vision.backends.local.model_loader import candidate_devices, checkpoint_path  # noqa: PLC0415 - as said

    settings = LocalSettings(
        max_batch_size=options.max_batch_size,
        max_model_len=options.max_model_len,
        quantization="auto",
        device=options.device,
        device_map=options.device_map,
    )
    devices = candidate_devices(settings)
    kind, config = describe_checkpoint(checkpoint_path(options.model))
    auto = plan_memory(config, devices, settings)
    print(f"{options.model}: {kind}, {_size(config)}")
    for device in devices:
        free = free_memory(device)
        print(f"{device}: " + ("free memory unknown" if free is None else f"{free / _GB:.1f} GB free"))
    plans = [
        plan_memory(config, devices, replace(settings, quantization=one)) for one in _quantizations(devices)
    ]
    print(_table([_HEADER, *map(_row, plans)]))
    if len(auto.devices) > 1:
        print(_table([_SPLIT_HEADER, *(_split_row(auto, one) for one in auto.devices)]))
    if not auto.fits:
        raise LocalModelError(
            f"{options.model} does not fit on {', '.join(map(str, devices))} with these settings. "
            + advice(config, devices, auto.settings)
        )
    print(f'quantization="auto" takes {auto.settings.quantization or "none"}.')


def _quantizations(devices: Sequence[Any]) -> list[Any]:
    from llama_vision.backends.local.quantization import check_quantization  # noqa: PLC0415 - loads torch

    try:
        for device in devices:
            check_quantization("fp8", device)
    except LocalModelError:
        return [None, "int8", "int4"]
    return [None, "fp8", "int8", "int4"]


def _size(config: Any) -> str:
    text = config.text_config
    return f"{text.num_hidden_layers} layers, context of {text.max_position_embeddings:,} tokens"


def _row(plan: "MemoryPlan") -> tuple[str, ...]:
    cells = [f"{size / _GB:.1f} GB" for size in (plan.weights, plan.working, plan.kv_cache, plan.total)]
    tokens = plan.max_kv_cache_tokens
    room = "unknown" if tokens is None else f"{tokens:,} tokens"
    return (plan.settings.quantization or "none", *cells, room, "yes" if plan.fits else "no")


def _split_row(plan: "MemoryPlan", memory: "DeviceMemory") -> tuple[str, ...]:
    sizes = memory.weights, memory.working, plan.num_blocks * memory.block_bytes
    return (str(memory.device), *(f"{size / _GB:.1f} GB" for size in sizes), describe_modules(memory.modules))


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
