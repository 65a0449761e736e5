"""What this machine has for the local model: devices and memory."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_MEMORY_OF_LINUX = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True)
class Device:
    """A device that a model can run on.

    Attributes:
        name: As `LocalSettings.device` takes it, such as `cuda:0`.
        title: What it is.
        memory_bytes: All of its memory; None where it is not known.
    """

    name: str
    title: str
    memory_bytes: int | None


def find_devices() -> list[Device]:
    """Find the devices, the fastest first; a CPU is always there.

    Raises:
        ImportError: torch is not installed, or can't be imported.
    """
    import torch  # noqa: PLC0415 - takes seconds

    cuda: Any = torch.cuda
    found: list[Device] = []
    for index in range(cuda.device_count()):
        properties = cuda.get_device_properties(index)
        found.append(Device(f"cuda:{index}", properties.name, properties.total_memory))
    if torch.backends.mps.is_available():
        found.append(Device("mps", "Apple GPU", system_memory()))
    return [*found, Device("cpu", f"{os.cpu_count()} processors", system_memory())]


def auto_devices() -> "list[torch.device]":
    """The devices that `device_map="auto"` fills, in order: all of torch's CUDA devices, then the CPU.

    Where there is none it is the fastest alone: Apple's GPU has no memory of its own.
    """
    import torch  # noqa: PLC0415 - takes seconds

    if count := torch.cuda.device_count():
        return [*(torch.device("cuda", index) for index in range(count)), torch.device("cpu")]
    return [torch.device("mps" if torch.backends.mps.is_available() else "cpu")]


def system_memory() -> int | None:
    """Return the bytes of this machine's memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def free_memory(device: "torch.device") -> int | None:
    """Bytes that are free on a device, what the system would make free included; None where it can't be known.

    Where a system says only how much memory it has in all, it is that.
    """
    import torch  # noqa: PLC0415 - takes seconds

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    if device.type != "cpu":
        return None
    try:
        lines = _MEMORY_OF_LINUX.read_text().splitlines()
    except OSError:
        return system_memory()
    return int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024
