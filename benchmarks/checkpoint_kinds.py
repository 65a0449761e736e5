"""What each kind of checkpoint loses: the tiny model's evaluation questions, asked of the model in every kind.

    python -m benchmarks.checkpoint_kinds [--count 13] [--only GGUF]

Prints a table for docs/local.md: how many replies are right, and how many are those of the model as it is. Files are written
by `tests/quantized_models.py` and `tests/gguf_models.py`. K-quants come in blocks of 256 weights of a row, and the tiny model's
rows are shorter: its weights are rounded to them in blocks across rows, and stored as they come back.
"""

import argparse
import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from llama_vision.backends.local import LocalBackend, LocalSettings
from llama_vision.backends.local.model_loader import TINY_MODEL_PATH
from llama_vision.core.reply import Reply
from llama_vision.providers import find_provider
from tests.gguf_models import K_QUANTS, write_gguf
from tests.quantized_models import KINDS, write_quantized
from training.evaluate import Case, Examiner

_CONCURRENCY = 32
_K_MIXES = {"Q4_K_M": ("Q4_K", "Q6_K"), "Q5_K": ("Q5_K", "Q6_K"), "Q6_K": ("Q6_K", "Q6_K")}
"""Type of most matrices, and of those that the mixes give six bits."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of checkpoint, or of weights in memory.

    Attributes:
        name: Of the row.
        write: Writes the model into a folder: what `model=` takes.
        quantization: Of `LocalSettings`.
    """

    name: str
    write: Callable[[Path], str]
    quantization: str | None = None


def kinds() -> list[Kind]:
    """All kinds, the model as it is first."""
    return [
        Kind("bfloat16", lambda _: "tiny"),
        *(Kind(name, lambda folder, name=name: str(write_quantized(folder, name))) for name in KINDS),
        *(
            Kind(f"GGUF {name}", lambda folder, name=name: str(write_gguf(folder, name)[0]))
            for name in ("F16", "Q8_0", "Q4_0")
        ),
        *(
            Kind(f"GGUF {name} (rounding only)", lambda folder, name=name: write_rounded(folder, name))
            for name in _K_MIXES
        ),
        *(Kind(f"quantization={one!r}", lambda _: "tiny", one) for one in ("int8", "int4")),
        Kind(
            "GPTQ int4, kept in four bits",
            lambda folder: str(write_quantized(folder, "GPTQ int4")),
            "int4",
        ),
    ]


def write_rounded(folder: Path, mix: str) -> str:
    """Write the model with the matrices of its text decoder and its LM head rounded as a mix of K-quants rounds them."""
    most, some = _K_MIXES[mix]
    folder.mkdir(parents=True)
    for path in TINY_MODEL_PATH.glob("*.json"):
        shutil.copy(path, folder)
    tensors = load_file(TINY_MODEL_PATH / "model.safetensors")
    for name, weight in tensors.items():
        if "language_model" in name and weight.dim() == 2:
            has_six_bits = any(part in name for part in ("lm_head", "self_attn.v_proj", "mlp.down_proj"))
            tensors[name] = _rounded(weight, some if has_six_bits else most)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def _rounded(weight: torch.Tensor, kind: str) -> torch.Tensor:
    flat = weight.float().flatten().numpy()
    blocks = np.pad(flat, (0, -len(flat) % 256)).reshape(-1, 256)
    stored_type = gguf.GGMLQuantizationType[kind]
    back = gguf.quants.dequantize(K_QUANTS[stored_type](blocks), stored_type).flatten()[: len(flat)]
    return torch.tensor(back).view_as(weight).to(weight.dtype)


def ask(model: str, quantization: str | None, count: int) -> list[tuple[str, bool]]:
    """Ask so many questions of each kind: each reply as text, and whether it is right."""
    examiner = Examiner(model, count)
    cases = [case for name, _, make in examiner.kinds() for case in examiner.cases(name, make)]
    settings = LocalSettings(device="cpu", quantization=quantization)
    with closing(LocalBackend(find_provider("local"), local=settings)) as backend:
        return asyncio.run(_ask_all(backend, cases))


async def _ask_all(backend: LocalBackend, cases: Sequence[Case]) -> list[tuple[str, bool]]:
    free = asyncio.Semaphore(_CONCURRENCY)

    async def one(case: Case) -> tuple[str, bool]:
        async with free:
            reply = await backend.acomplete(case.request)
            return _text(reply), case.right(reply)

    return await asyncio.gather(*map(one, cases))


def _text(reply: Reply) -> str:
    return reply.text + "".join(f" {call.name}({call.arguments})" for call in reply.tool_calls)


def shares(
    found: Sequence[tuple[str, bool]], before: Sequence[tuple[str, bool]]
) -> tuple[float, float, float]:
    """Shares of right replies, of replies that are the same as before, and of right ones that are right still."""
    right = sum(one for _, one in found) / len(found)
    same = sum(one == other for (one, _), (other, _) in zip(found, before, strict=True)) / len(found)
    still = [one for (_, one), (_, other) in zip(found, before, strict=True) if other]
    return right, same, sum(still) / len(still)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=13, help="questions of each kind")
    parser.add_argument("--only", default="", help="just those kinds whose name holds this")
    options = parser.parse_args()
    before = ask("tiny", None, options.count)
    print(f"{len(before)} questions of each\n")
    print("| kind | right | right as before | same reply | s |")
    print("| --- | --- | --- | --- | --- |")
    for kind in kinds():
        if options.only in kind.name:
            with tempfile.TemporaryDirectory() as folder:
                began = time.monotonic()
                found = ask(kind.write(Path(folder) / "model"), kind.quantization, options.count)
            right, same, still = shares(found, before)
            seconds = time.monotonic() - began
            print(f"| {kind.name} | {right:.1%} | {still:.1%} | {same:.1%} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
