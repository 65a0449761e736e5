"""Device map: which device each module of the model is on, by transformers' names of the modules.

A decoder layer stays whole. Layers that follow each other on one device are a pipeline stage, as vLLM calls it: sequences pass
through the stages in order, and only hidden states move from one to the next.
"""

import bisect
import itertools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from llama_vision.core.errors import LocalModelError

if TYPE_CHECKING:
    import torch

DeviceMap: TypeAlias = "Mapping[str, torch.device]"
"""The device of each module of `module_groups`."""

VISION_MODEL, PROJECTOR = "model.vision_model", "model.multi_modal_projector"
EMBEDDING, ROTARY_EMBEDDING = "model.language_model.embed_tokens", "model.language_model.rotary_emb"
NORM, LM_HEAD = "model.language_model.norm", "lm_head"
_TOGETHER = {PROJECTOR: VISION_MODEL, ROTARY_EMBEDDING: EMBEDDING, NORM: LM_HEAD}
_LAYERS = "model.language_model.layers"

_MODULE = re.compile(
    r"(model\.vision_model|model\.multi_modal_projector|model\.language_model\.(embed_tokens|rotary_emb|norm|layers\.\d+)|lm_head)(?![^.])"
)


@dataclass(frozen=True, slots=True)
class PipelineStage:
    """Decoder layers that follow each other on one device."""

    device: "torch.device"
    layers: range


def module_groups(num_layers: int) -> list[tuple[str, ...]]:
    """The modules in order of the forward pass; those of a group belong on one device."""
    layers = [(f"{_LAYERS}.{layer}",) for layer in range(num_layers)]
    return [(VISION_MODEL, PROJECTOR), (EMBEDDING, ROTARY_EMBEDDING), *layers, (NORM, LM_HEAD)]


def module_of(path: str) -> str | None:
    """The module that a submodule or a parameter belongs to; None for what holds several, such as `model`."""
    match = _MODULE.match(path)
    return match and match[0]


def names_modules(prefix: str) -> bool:
    """Whether a key of a device map names one of the modules, or several; the empty one names all."""
    several = ("", "model", "model.language_model", _LAYERS)
    return prefix in several or bool(_MODULE.fullmatch(prefix))


def resolve_device_map(devices: DeviceMap, num_layers: int) -> dict[str, "torch.device"]:
    """Give each module the device of the longest key that names it; one that belongs to another and has no key of its own goes there.

    Raises:
        LocalModelError: A module has none, a key names no module of this model, or what belongs together is on different devices.
    """
    resolved: dict[str, torch.device] = {}
    used: set[str] = set()
    for module in _flat(module_groups(num_layers)):
        keys = [key for key in devices if key in ("", module) or module.startswith(f"{key}.")]
        if not keys:
            raise LocalModelError(
                f"device_map has no device for {module}: the key '' stands for all that is not named."
            )
        used.update(keys)
        resolved[module] = devices[max(keys, key=len)]
    if unused := devices.keys() - used:
        raise LocalModelError(
            f"device_map names {min(unused)}, and this model has {num_layers} layers, from 0."
        )
    for module, other in _TOGETHER.items():
        if module not in devices:
            resolved[module] = resolved[other]
        if resolved[module] != resolved[other]:
            raise LocalModelError(f"device_map has to put {module} and {other} on one device.")
    return resolved


def fill_devices(
    groups: Sequence[tuple[str, ...]],
    devices: "Sequence[torch.device]",
    fits: "Callable[[torch.device, Sequence[str]], bool]",
) -> dict[str, "torch.device"]:
    """Give each device in order as many of the next groups as fit, and the last one what is left.

    Args:
        groups: Of modules, in order of the forward pass.
        devices: At least one.
        fits: Whether these modules together fit on this device; fewer fit where more do.
    """
    resolved: dict[str, torch.device] = {}
    rest = list(groups)
    for device in devices[:-1]:
        counts = range(1, len(rest) + 1)
        count = bisect.bisect_left(counts, True, key=lambda n: not fits(device, _flat(rest[:n])))
        resolved |= dict.fromkeys(_flat(rest[:count]), device)
        del rest[:count]
    return resolved | dict.fromkeys(_flat(rest), devices[-1])


def modules_by_device(device_map: DeviceMap) -> "dict[torch.device, list[str]]":
    """The modules of each device, in order of the forward pass."""
    found: dict[torch.device, list[str]] = {}
    for module, device in device_map.items():
        found.setdefault(device, []).append(module)
    return found


def pipeline_stages(device_map: DeviceMap) -> list[PipelineStage]:
    """The stages of the text decoder, in order."""
    stages: list[PipelineStage] = []
    layers = itertools.groupby(layer_indices(device_map), lambda layer: device_map[f"{_LAYERS}.{layer}"])
    for device, its in layers:
        indices = list(its)
        stages.append(PipelineStage(device, range(indices[0], indices[-1] + 1)))
    return stages


def layer_indices(modules: Collection[str]) -> list[int]:
    """The decoder layers among modules, in order."""
    return sorted(int(module.rpartition(".")[2]) for module in modules if module.startswith(_LAYERS))


def layer_ranges(modules: Collection[str]) -> list[range]:
    """The decoder layers among modules, in ranges without gaps."""
    ranges: list[range] = []
    for layer in layer_indices(modules):
        if ranges and ranges[-1].stop == layer:
            ranges[-1] = range(ranges[-1].start, layer + 1)
        else:
            ranges.append(range(layer, layer + 1))
    return ranges


def describe_modules(modules: Collection[str]) -> str:
    """Name modules shortly, such as `vision encoder, embedding, layers 0-19`."""
    titles = {VISION_MODEL: "vision encoder", EMBEDDING: "embedding", LM_HEAD: "LM head"}
    layers = [
        f"layers {its.start}-{its.stop - 1}" if len(its) > 1 else f"layer {its.start}"
        for its in layer_ranges(modules)
    ]
    before = [titles[module] for module in (VISION_MODEL, EMBEDDING) if module in modules]
    return ", ".join([*before, *layers, *([titles[LM_HEAD]] if LM_HEAD in modules else [])])


def _flat(groups: Sequence[tuple[str, ...]]) -> list[str]:
    return [module for group in groups for module in group]
