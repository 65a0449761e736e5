"""Trains the tiny model: `make train`, or `python -m training.train OUT`.

It continues from `training/first`, the weights of earlier rounds. First the vision encoder is trained alone, on patch labels;
then everything jointly. Seeds and steps are fixed, so the same machine makes the same weights; another one rounds differently,
and makes equally good ones. `--from-nothing` initialises the weights, trains a tokenizer, and needs more steps.
"""

import argparse
import json
import math
import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch.nn import functional
from transformers import MllamaConfig, MllamaForConditionalGeneration

from training.batches import Batch, BatchMaker, stream
from training.foundation import write_foundation
from training.network import PatchClassifiers, decode_text, encode_images, init_network

FIRST = Path(__file__).parent / "first"
_PATCH_LOSS_WEIGHT = 0.3
"""Weight of the patch classifiers' loss beside the language loss."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The schedule.

    Attributes:
        seeing: Steps for the vision encoder alone.
        together: Steps for everything.
        rate: Peak learning rate.
        talks: Share of steps with long conversations.
        seed: Of images, texts and initialisation.
        compiled: Whether to use `torch.compile`, which takes a C++ compiler and a few minutes, and halves the time after that.
    """

    seeing: int = 100
    together: int = 1100
    rate: float = 6e-4
    talks: float = 0.45
    seed: int = 1
    compiled: bool = True


class Trainer:
    """Trains a network.

    Args:
        folder: With tokenizer and configuration, and with `continued` also weights to continue from.
        plan: The schedule.
        continued: Whether to continue from weights.
    """

    def __init__(self, folder: Path, plan: Plan, *, continued: bool) -> None:
        torch.manual_seed(plan.seed)
        self._folder, self._plan = folder, plan
        config = MllamaConfig.from_pretrained(folder)
        self.network = init_network(config)
        if continued:
            self.network.load_state_dict(_weights(folder))
        self._patch_classifiers = PatchClassifiers(config.vision_config.vision_output_dim)
        self._encode_images, self._decode_text = encode_images, decode_text
        if plan.compiled:
            self._encode_images, self._decode_text = (
                torch.compile(one, dynamic=False) for one in (encode_images, decode_text)
            )

    def train_vision_encoder(self) -> None:
        """Train the vision encoder on patch labels."""
        vision = [*self.network.model.vision_model.parameters(), *self._patch_classifiers.parameters()]
        optimizer = _optimizer(vision, 2 * self._plan.rate)
        log = _Log("seeing", self._plan.seeing)
        batches = stream(self._folder, _images, seed=self._plan.seed * 1000, count=self._plan.seeing)
        for step, batch in enumerate(batches):
            _set_rate(optimizer, step, self._plan.seeing, lowest=0.3)
            loss, right = self.patch_loss(self.encode(batch), batch)
            _optimize(optimizer, vision, loss)
            log.add(step, patches=loss.item(), **right)

    def train_jointly(self, out: Path) -> None:
        """Train all parameters jointly, and save checkpoints."""
        plan = self._plan
        every = [*self.network.parameters(), *self._patch_classifiers.parameters()]
        optimizer = _optimizer(every, plan.rate)
        log = _Log("together", plan.together)
        kinds = _Alternating(plan.talks)
        for step, batch in enumerate(
            stream(self._folder, kinds, seed=plan.seed * 1000 + 1, count=plan.together)
        ):
            _set_rate(optimizer, step, plan.together, lowest=0.02)
            states = self.encode(batch)
            language = self.language_loss(states, batch)
            patches, right = self.patch_loss(states, batch)
            _optimize(optimizer, every, language + _PATCH_LOSS_WEIGHT * patches)
            log.add(step, **{"talks" if kinds.are_talks(step) else "images": language.item()}, **right)
            if step % 500 == 499:
                self.save(out)
        self.save(out)

    def save(self, out: Path) -> None:
        """Save the weights in bfloat16."""
        state = {name: weights.to(torch.bfloat16) for name, weights in self.network.state_dict().items()}
        self.network.save_pretrained(out, state_dict=state)

    def encode(self, batch: Batch) -> torch.Tensor:
        """Run the vision encoder on a batch's images: (images, 1 + patches, width)."""
        with torch.autocast("cpu", torch.bfloat16):
            return self._encode_images(self.network, torch.from_numpy(batch.tiles))

    def patch_loss(self, states: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        """Compute the patch classifiers' loss and their accuracies."""
        return self._patch_classifiers.loss(
            states.float(), *(torch.from_numpy(one) for one in (batch.labels, batch.places, batch.middles))
        )

    def language_loss(self, encoded: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Compute the next-token cross-entropy over the loss mask."""
        ids, loss_mask = torch.from_numpy(batch.ids), torch.from_numpy(batch.loss_mask)[:, 1:]
        with torch.autocast("cpu", torch.bfloat16):
            states = self.network.model.multi_modal_projector(encoded)
            text_only = len(ids) - len(states)
            if text_only:
                states = torch.cat([states, states.new_zeros(text_only, *states.shape[1:])])
            model = self.network.model.language_model
            hidden = self._decode_text(model, ids, states, torch.from_numpy(batch.image_mask))
            logits = self.network.lm_head(hidden[:, :-1][loss_mask])
        return functional.cross_entropy(logits.float(), ids[:, 1:][loss_mask])


class _Alternating:
    """Alternates kinds of batches; a class, because it is pickled for another process."""

    def __init__(self, talks: float) -> None:
        self._talks = talks

    def are_talks(self, step: int) -> bool:
        return int((step + 1) * self._talks) > int(step * self._talks)

    def __call__(self, maker: BatchMaker, step: int) -> Batch:
        return maker.talks() if self.are_talks(step) else maker.images()


def _images(maker: BatchMaker, step: int) -> Batch:  # noqa: ARG001 - as `stream` calls it
    return maker.images()


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return MllamaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).state_dict()


def _optimizer(parameters: Sequence[torch.Tensor], rate: float) -> torch.optim.Optimizer:
    wide = [one for one in parameters if one.dim() >= 2]
    narrow = [one for one in parameters if one.dim() < 2]
    groups = [{"params": wide, "weight_decay": 0.03}, {"params": narrow, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)


def _set_rate(optimizer: torch.optim.Optimizer, step: int, steps: int, *, lowest: float) -> None:
    """Linear warm-up over 150 steps times a cosine decay to a share of the peak."""
    wave = 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimizer.param_groups:
        highest = group.setdefault("initial_lr", group["lr"])
        group["lr"] = highest * min(1, (step + 1) / 150) * (lowest + (1 - lowest) * wave)


def _optimize(
    optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor], loss: torch.Tensor
) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


class _Log:
    """Prints a JSON line every 50 steps: means since the last one."""

    def __init__(self, phase: str, steps: int) -> None:
        self._phase, self._steps, self._began = phase, steps, time.monotonic()
        self._values: dict[str, list[float]] = defaultdict(list)

    def add(self, step: int, **values: float) -> None:
        for name, value in values.items():
            self._values[name].append(value)
        if step % 50 == 49 or step == self._steps - 1:
            means = {name: round(fmean(some), 4) for name, some in self._values.items()}
            seconds = round(time.monotonic() - self._began)
            line: dict[str, Any] = {
                "phase": self._phase,
                "step": step + 1,
                "of": self._steps,
                "s": seconds,
                **means,
            }
            print(json.dumps(line), flush=True)
            self._values.clear()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and write a model folder."""
    defaults = Plan()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument(
        "--from-nothing", action="store_true", help="initialise the weights and train a new tokenizer"
    )
    parser.add_argument(
        "--seeing", type=int, default=defaults.seeing, help="steps for the vision encoder alone"
    )
    parser.add_argument("--together", type=int, default=defaults.together, help="steps for everything")
    parser.add_argument("--rate", type=float, default=defaults.rate, help="peak learning rate")
    parser.add_argument(
        "--talks", type=float, default=defaults.talks, help="share of steps with long conversations"
    )
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument(
        "--threads", type=int, default=2, help="CPU threads; another number rounds differently"
    )
    parser.add_argument("--plainly", action="store_true", help="without torch.compile")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    if given.from_nothing:
        write_foundation(given.out)
    else:
        shutil.copytree(FIRST, given.out, dirs_exist_ok=True)
    plan = Plan(
        given.seeing,
        given.together,
        given.rate,
        given.talks,
        given.seed,
        not given.plainly,
    )
    trainer = Trainer(given.out, plan, continued=not given.from_nothing)
    trainer.train_vision_encoder()
    trainer.train_jointly(given.out)


if __name__ == "__main__":
    main()
