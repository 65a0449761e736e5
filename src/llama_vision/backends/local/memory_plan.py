"""How much memory a model takes, and on which devices, computed before any weight is read."""

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import starmap
from typing import Any

import torch

from llama_vision.backends.local.config import LocalSettings
from llama_vision.backends.local.device_map import (
    DeviceMap,
    describe_modules,
    fill_devices,
    layer_indices,
    module_groups,
    modules_by_device,
    resolve_device_map,
)
from llama_vision.backends.local.devices import auto_devices, free_memory
from llama_vision.backends.local.kv_cache import block_layout
from llama_vision.backends.local.kv_cache_size import (
    block_bytes_of,
    kv_cache_share,
    min_blocks,
    num_useful_blocks,
)
from llama_vision.backends.local.memory_estimate import num_vision_tokens, weights_bytes, working_bytes
from llama_vision.backends.local.weights import empty_model, weights_dtype
from llama_vision.core.errors import LocalModelError

QUANTIZATIONS = (None, "int8", "int4")
"""What `quantization="auto"` takes from, best first."""

_SEVERAL_MACHINES = (
    "SGLang spreads a model over the GPUs of a machine, `python -m sglang.launch_server --model-path MODEL --tp 4`, and of several, with "
    "`--tp 8 --nnodes 2 --node-rank 0 --dist-init-addr HOST:PORT` on the first and `--node-rank 1` on the second; then pass "
    "provider='sglang' and base_url=."
)
"""What runs a model that is too large for this one."""

_GB = 1e9
_DEFAULT_PLANNED_TOKENS = 4096
"""Tokens of a sequence that the plan counts with where `max_model_len` is not set: few fill a context of 131,072."""


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes that a model takes on one device.

    Attributes:
        modules: What is there, by transformers' names.
        weights: Of these modules.
        block_bytes: Of a block of the KV cache.
        working: Activations and what a runtime takes, estimated.
        free: On the device; None where it can't be known.
    """

    device: torch.device
    modules: tuple[str, ...]
    weights: int
    block_bytes: int
    working: int
    free: int | None

    @property
    def left(self) -> int | None:
        """What is for the KV cache; negative where there is too little without it."""
        if self.free is None:
            return None
        return kv_cache_share(self.free - self.weights, self.working, self.device)

    def has_room(self, num_blocks: int) -> bool:
        """Whether all fits with so many blocks of the KV cache, as far as is known."""
        return self.left is None or num_blocks * self.block_bytes <= self.left


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes that a model takes, by what takes them.

    Attributes:
        devices: By device, in order.
        num_blocks: Blocks of the KV cache for `kv_cache_bytes`, else for `max_batch_size` sequences of `max_model_len` (of 4,096 tokens
            where it is not set) with an image each, and full image and prefix caches.
        max_blocks: The same, for sequences that fill the context.
        min_blocks: Of a short conversation about one image.
        image_blocks: Of an image of the most tiles.
        block_size: Tokens of a block.
    """

    settings: LocalSettings
    devices: tuple[DeviceMemory, ...]
    num_blocks: int
    max_blocks: int
    min_blocks: int
    image_blocks: int
    block_size: int

    @property
    def device_map(self) -> DeviceMap:
        """Where each module goes."""
        return {module: one.device for one in self.devices for module in one.modules}

    @property
    def weights(self) -> int:
        """On all devices."""
        return sum(one.weights for one in self.devices)

    @property
    def working(self) -> int:
        """Activations and runtimes."""
        return sum(one.working for one in self.devices)

    @property
    def kv_cache(self) -> int:
        """The planned KV cache."""
        return self.num_blocks * sum(one.block_bytes for one in self.devices)

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv_cache + self.working

    @property
    def fits(self) -> bool:
        """Whether all of it fits, as far as is known."""
        return self.has_room(self.num_blocks)

    @property
    def can_load(self) -> bool:
        """Whether there is room for a short conversation."""
        return self.has_room(self.min_blocks)

    @property
    def max_kv_cache_tokens(self) -> int | None:
        """Tokens that the KV cache has room for beside one image of the most tiles; None where it can't be known."""
        if not self.can_load:
            return 0
        tokens = [
            (one.left - self.image_blocks * one.block_bytes) * self.block_size // one.block_bytes
            for one in self.devices
            if one.left is not None and one.block_bytes
        ]
        return max(0, min(tokens)) if tokens else None

    @property
    def cpu_layers(self) -> int:
        """Decoder layers that run on the CPU although there is a GPU."""
        on_cpu = [len(layer_indices(one.modules)) for one in self.devices if one.device.type == "cpu"]
        return sum(on_cpu) if len(on_cpu) < len(self.devices) else 0

    def has_room(self, num_blocks: int) -> bool:
        """Whether all fits with so many blocks of the KV cache, as far as is known."""
        return all(one.has_room(num_blocks) for one in self.devices)

    def __str__(self) -> str:
        needed = (
            f"weights {_gb(self.weights)} + activations {_gb(self.working)} + KV cache {_gb(self.kv_cache)} = "
            f"{_gb(self.total)}, "
        )
        if len(self.devices) == 1:
            return needed + _free(self.devices[0])
        return needed + "; ".join(
            f"{describe_modules(one.modules)} ({_gb(one.weights)}): {_free(one)}" for one in self.devices
        )


def plan_memory(config: Any, devices: Sequence[torch.device], settings: LocalSettings) -> MemoryPlan:
    """Plan from a checkpoint's MllamaConfig. `quantization="auto"` becomes the best that fits, else the smallest.

    The weights of a checkpoint that is quantized itself count in `dtype`, since they are dequantized where they are loaded.

    Args:
        config: The configuration.
        devices: Those to fill, in order: GPUs, and the CPU as the last resort. A mapping as `device_map` says what goes where.
        settings: As they are loaded with.
    """
    model, free = empty_model(config, {}), {device: free_memory(device) for device in devices}
    if settings.quantization != "auto":
        return _plan(model, free, settings)
    plans = [_plan(model, free, replace(settings, quantization=one)) for one in QUANTIZATIONS]
    # To quantize costs less time than layers on the CPU.
    return next((plan for plan in plans if plan.fits and not plan.cpu_layers), plans[-1])


def check_memory(
    model: str, config: Any, devices: Sequence[torch.device], settings: LocalSettings
) -> MemoryPlan:
    """Plan, and refuse what can't be loaded before its weights are downloaded or read.

    Raises:
        LocalModelError: There is no room for it; the text says what would fit.
    """
    plan = plan_memory(config, devices, settings)
    if not plan.can_load:
        raise LocalModelError(
            f"{model} does not fit into the memory of {', '.join(map(str, devices))}: {plan}. {advice(config, devices, plan.settings)}"
        )
    return plan


def advice(config: Any, devices: Sequence[torch.device], settings: LocalSettings) -> str:
    """Say what would fit: all devices, another quantization, batch size or context, or another machine."""
    model, every = empty_model(config, {}), auto_devices()
    free = {device: free_memory(device) for device in {*devices, *every}}
    smaller = [
        replace(settings, quantization=one) for one in QUANTIZATIONS if one and one != settings.quantization
    ]
    smaller += [
        replace(one, max_batch_size=size, max_model_len=length, image_cache_bytes=0, prefix_cache_bytes=0)
        for one in (settings, *smaller)
        for size in (4, 1)
        for length in (2048, 1024)
    ]
    options = [(one, devices) for one in smaller]
    if settings.device_map is None and len(every) > 1:
        options.insert(0, (replace(settings, device=None, device_map="auto"), every))
    plans = [_plan(model, {device: free[device] for device in its}, one) for one, its in options]
    fitting = sorted((plan for plan in plans if plan.fits), key=lambda plan: plan.cpu_layers > 0)
    if not fitting:
        return f"No setting makes it fit here. Take a device with more memory, or let a server run it. {_SEVERAL_MACHINES}"
    changed = {
        name: value
        for name in LocalSettings.__slots__
        if (value := getattr(fitting[0].settings, name)) != getattr(settings, name)
    }
    return f"This fits: LocalSettings({', '.join(f'{name}={value!r}' for name, value in changed.items())})."


def _plan(model: Any, free: Mapping[torch.device, int | None], settings: LocalSettings) -> MemoryPlan:
    """Place the modules by `device_map`, or in order of the devices: with a smaller KV cache before the CPU gets any."""
    num_layers, devices = model.config.text_config.num_hidden_layers, list(free)
    measure = _measure(model, free, settings)
    if isinstance(settings.device_map, Mapping):
        by_name = {str(device): device for device in devices}
        named = {module: by_name[str(name)] for module, name in settings.device_map.items()}
        return measure(resolve_device_map(named, num_layers))

    def place(devices: Sequence[torch.device], num_blocks: int) -> MemoryPlan:
        def fits(device: torch.device, modules: Sequence[str]) -> bool:
            return measure(dict.fromkeys(modules, device)).has_room(num_blocks)

        return measure(fill_devices(module_groups(num_layers), devices, fits))

    sizes = measure({})
    gpus = [device for device in devices if device.type != "cpu"]
    planned = range(sizes.min_blocks, sizes.num_blocks + 1)
    more = range(sizes.num_blocks, sizes.max_blocks + 1)
    # As few GPUs as will do, and as even as these can be filled.
    options = [(gpus[:count], more) for count in range(1, len(gpus) + 1)]
    for candidates, counts in [*options, (gpus, planned), (devices, planned)]:
        if not candidates:
            continue
        num_fitting = bisect.bisect_left(
            counts, True, key=lambda n, its=candidates: not place(its, n).has_room(n)
        )
        if num_fitting:
            return place(candidates, counts[num_fitting - 1])
    return place(devices, sizes.min_blocks)


def _measure(
    model: Any, free: Mapping[torch.device, int | None], settings: LocalSettings
) -> Callable[[DeviceMap], MemoryPlan]:
    """What a model takes, by where its modules are."""
    config, dtype = model.config, weights_dtype(model, free.keys(), settings)
    layout, image_tokens = block_layout(config.text_config), num_vision_tokens(config.vision_config)
    context_window = config.text_config.max_position_embeddings
    weights = weights_bytes(model, settings.quantization, dtype)

    def useful_blocks(max_model_len: int) -> int:
        return num_useful_blocks(
            layout,
            settings,
            max_model_len=max_model_len,
            num_vision_tokens=image_tokens,
            block_bytes=layout.num_elements * dtype.itemsize,
        )

    longest = min(settings.max_model_len or context_window, context_window)
    length = min(settings.max_model_len or _DEFAULT_PLANNED_TOKENS, context_window)
    num_blocks, max_blocks = useful_blocks(length), useful_blocks(longest)

    def on_device(device: torch.device, modules: Sequence[str]) -> DeviceMemory:
        return DeviceMemory(
            device=device,
            modules=tuple(modules),
            weights=sum(weights[module] for module in modules),
            block_bytes=block_bytes_of(layout, modules, dtype),
            working=working_bytes(config, settings.max_batch_size, dtype, device, modules),
            free=free[device],
        )

    def measure(device_map: DeviceMap) -> MemoryPlan:
        return MemoryPlan(
            settings=settings,
            devices=tuple(starmap(on_device, modules_by_device(device_map).items())),
            num_blocks=num_blocks,
            max_blocks=max_blocks,
            min_blocks=min_blocks(layout, length, image_tokens),
            image_blocks=layout.num_vision_blocks(image_tokens),
            block_size=layout.block_size,
        )

    return measure


def _free(memory: DeviceMemory) -> str:
    if memory.left is None or memory.free is None:
        return f"free on {memory.device}: unknown"
    left = _gb(max(0, memory.left))
    return f"free on {memory.device}: {_gb(memory.free)}, of which {left} are for the KV cache"


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / _GB:.1f} GB"
