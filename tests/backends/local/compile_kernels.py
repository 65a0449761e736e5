"""Compiles the Triton kernels for GPUs that are not here, with the arguments that they are launched with.

`python -m tests.backends.local.compile_kernels 90 232448` prints a line of JSON for each launch of the 11B on a GPU of compute
capability 9.0, whose blocks of threads may take so many bytes of shared memory: its name, and the bytes it takes. Triton's wheel
brings the compiler.
"""

import json
import sys
from contextlib import contextmanager

import torch
import triton
from torch import nn
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from llama_vision.backends.local import int4_linear
from llama_vision.backends.local.int4_linear import Int4Linear
from llama_vision.backends.local.kernels import (
    triton_fused_linear,
    triton_paged_attention,
    triton_rope_and_cache,
)
from llama_vision.backends.local.quantization import Int8Linear

KERNELS = [
    (triton_fused_linear, "_fused_linear"),
    (triton_rope_and_cache, "_rope_and_cache"),
    (triton_paged_attention, "_attend"),
    (triton_paged_attention, "_combine"),
]
TYPES = {
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float32: "fp32",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.bool: "i1",
    torch.int32: "i32",
    torch.int64: "i64",
}
KINDS = {"plain": lambda linear: linear, "int8": Int8Linear, "int4": Int4Linear.quantize}
DIVISIBLE = [["tt.divisibility", 16]]


class Compiler:
    """In a kernel's place: compiles it as Triton would where it is launched."""

    def __init__(self, kernel, capability):
        self.kernel, self.capability, self.shared = kernel, capability, 0

    def __getitem__(self, grid):
        return self.compile

    def compile(self, *args, **options):
        names = self.kernel.arg_names
        constants = {name: options.pop(name) for name in names if name in options}
        signature, attributes = dict.fromkeys(constants, "constexpr"), {}
        for index, value in enumerate(args):
            if isinstance(value, int) and value == 1:
                signature[names[index]], constants[names[index]] = "constexpr", 1
                continue
            signature[names[index]] = _type(value)
            if isinstance(value, torch.Tensor) or (isinstance(value, int) and value % 16 == 0):
                attributes[index,] = DIVISIBLE
        signature = {name: signature[name] for name in names}
        source = ASTSource(self.kernel, signature, constants, attributes)
        compiled = triton.compile(source, GPUTarget("cuda", self.capability, 32), options)
        self.shared = max(self.shared, compiled.metadata.shared)


def _type(value):
    if isinstance(value, torch.Tensor):
        return "*" + TYPES[value.dtype]
    return "i32" if isinstance(value, int) else "fp32"


@contextmanager
def compilers(capability, shared_memory):
    originals = [(module, name, getattr(module, name)) for module, name in KERNELS]
    found = [Compiler(kernel, capability) for _, _, kernel in originals]
    for (module, name, _), compiler in zip(originals, found, strict=True):
        setattr(module, name, compiler)
    triton_fused_linear.shared_memory_bytes = lambda device: shared_memory
    triton_paged_attention.num_splits = lambda num_programs, device: 16
    int4_linear._packed_order = lambda: None  # as on a GPU
    try:
        yield found
    finally:
        for module, name, kernel in originals:
            setattr(module, name, kernel)


def linear_layers():
    """Kind of weights, tokens, and whether it is the first or the second of an MLP, by the 11B's widths."""
    for kind in KINDS:
        for num_tokens in (1, 2, 64):
            for is_first in (True, False):
                yield kind, num_tokens, is_first


def compile_linear(kind, num_tokens, *, is_first):
    in_features, out_features = (4096, 256) if is_first else (14336, 128)
    weight = nn.Linear(in_features, out_features, bias=False, dtype=torch.bfloat16)
    hidden = torch.zeros(num_tokens, in_features, dtype=torch.bfloat16)
    surroundings = {"norm": hidden[0], "eps": 1e-5, "is_swiglu": True}
    if not is_first:
        gate, mask = hidden.new_zeros(1), torch.ones(num_tokens, 1, dtype=torch.bool)
        surroundings = {"residual": hidden[:, :out_features].contiguous(), "gate": gate, "mask": mask}
    triton_fused_linear.fused_linear(KINDS[kind](weight), hidden, **surroundings)


def compile_attention():
    cache = torch.zeros(4, 2, 8, 16, 128, dtype=torch.bfloat16)
    tables, rows = torch.zeros(3, 8, dtype=torch.int32), torch.zeros(2, dtype=torch.long)
    for counts in (None, tables):
        triton_paged_attention.paged_attention(cache.new_zeros(2, 32, 128), cache, tables, rows, rows, counts)
    rope = cache.new_zeros(2, 128)
    triton_rope_and_cache.rope_and_cache(cache.new_zeros(2, 48, 128), rope, rope, cache, rows, rows)


def main(capability, shared_memory):
    with compilers(capability, shared_memory) as found:
        for kind, num_tokens, is_first in linear_layers():
            found[0].shared = 0
            compile_linear(kind, num_tokens, is_first=is_first)
            name = f"{kind}, {num_tokens} tokens, {'first' if is_first else 'second'} of the MLP"
            print(json.dumps({"name": name, "shared": found[0].shared}), flush=True)
        compile_attention()
        for (_, name), compiler in zip(KERNELS[1:], found[1:], strict=True):
            print(json.dumps({"name": name, "shared": compiler.shared}), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
