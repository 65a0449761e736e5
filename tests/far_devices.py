"""Devices `far:0`, `far:1`, ... that torch tells apart from each other and from the CPU, with their tensors in the CPU's memory.

What a machine with several GPUs does is run and compared here without one: torch's own tensors are on these devices, an operation whose
tensors are on different ones is refused, as CUDA's are, and each copy from one to another is recorded.
"""

import contextlib

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

HAS_FAR_DEVICES = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
"""Whether this torch takes devices that are written in Python."""

_CPU = torch.device("cpu")
_COPIES = (torch.ops.aten.to, torch.ops.aten._to_copy, torch.ops.aten.copy_)


class FarTensor(torch.Tensor):
    """A tensor on a far device: `on_cpu` holds its values."""

    @staticmethod
    def __new__(cls, on_cpu, device):
        with torch.inference_mode(False):  # as torch's own, whose views belong to their base
            self = torch.Tensor._make_wrapper_subclass(
                cls,
                on_cpu.size(),
                strides=on_cpu.stride(),
                storage_offset=on_cpu.storage_offset(),
                dtype=on_cpu.dtype,
                device=device,
            )
        self.on_cpu = on_cpu
        return self

    def tolist(self):
        return self.on_cpu.tolist()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise AssertionError(f"{function} outside of `far_devices`")


class _FarDevices(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.moves = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        values, _ = tree_flatten((args, kwargs))
        tensors = [one for one in values if isinstance(one, torch.Tensor)]
        is_copy = function.overloadpacket in _COPIES
        found = {
            one.device for one in tensors if one.dim() or one.device != _CPU
        }  # numbers go with any device
        if len(found) > 1 and not is_copy:
            raise RuntimeError(f"{function}: expected all tensors on one device, and found {found}")
        device = next((one for one in values if isinstance(one, torch.device)), None)
        if device is None:
            device = tensors[0].device if is_copy else next(iter(found), _CPU)
        is_move = is_copy and tensors[-1].device != device
        if is_move:
            self.moves.append((str(tensors[-1].device), str(device), tuple(tensors[-1].shape)))
        its_args, its_kwargs = tree_map_only(FarTensor, lambda one: one.on_cpu, (args, kwargs))
        if device.type != "meta":
            its_args, its_kwargs = tree_map_only(torch.device, lambda _: _CPU, (its_args, its_kwargs))
        result = function(*its_args, **its_kwargs)
        returned = function._schema.returns[0].alias_info if function._schema.returns else None
        if returned is not None and returned.is_write:
            return args[0]  # in place
        if is_move and device.type != "meta":
            result = result.clone()  # it is in other memory
        if device.type != "far":
            return result
        return tree_map_only(torch.Tensor, lambda one: FarTensor(one, device), result)


def _register():
    class Hooks(backend_registration._DummyPrivateUse1Hook):
        def is_available(self):
            return False  # to all that takes the accelerator there is

        def has_primary_context(self, dev_id):
            return False

    class Module(backend_registration._DummyBackendModule):
        def is_available(self):
            return False

        def is_initialized(self):
            return False

        def device_count(self):
            return 0

    backend_registration._setup_privateuseone_for_python_backend("far", Module(), Hooks())


@contextlib.contextmanager
def far_devices():
    """Let `torch.device("far", index)` be used in this thread; yields the copies between devices: (from, to, shape)."""
    if not hasattr(torch, "far"):
        _register()
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # or `torch.tensor(..., device=)` passes the mode by
    try:
        with _FarDevices() as mode:
            yield mode.moves
    finally:
        torch._C._set_only_lift_cpu_tensors(before)
