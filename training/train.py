"""Teaches the tiny model: `make train`, or `python -m training.train OUT`.

It goes on from `training/first`, weights that earlier rounds left behind. First the half that sees learns alone, patch by patch;
then everything together. Seeds and steps are fixed, so the same machine makes the same weights; another one rounds differently,
and makes as good ones. `--from-nothing` begins without any weights, with a tokenizer of its own, and needs more steps.
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

from training.batches import Batch, Maker, stream
from training.foundation import lay
from training.network import PatchQuestions, fresh, read_words, seen_images

FIRST = Path(__file__).parent / "first"
_PATCHES_WEIGH = 0.3
"""How much what the patches answer counts beside the model's own words."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to learn what.

    Attributes:
        seeing: Steps for the half that sees, alone.
        together: Steps for everything.
        rate: The highest learning rate.
        talks: The share of steps that are about long talks.
        seed: Decides images, words and starting values.
        compiled: Whether passes are compiled, which takes a C++ compiler and a few minutes, and halves the time after that.

    """

    seeing: int = 100
    together: int = 1100
    rate: float = 6e-4
    talks: float = 0.45
    seed: int = 1
    compiled: bool = True


class Trainer:
    """A network that learns.

    Args:
        folder: With tokenizer and configuration, and with `continued` also weights to go on from.
        plan: How long, and how fast.
        continued: Whether to go on from weights.

    """

    def __init__(self, folder: Path, plan: Plan, *, continued: bool) -> None:
        torch.manual_seed(plan.seed)
        self._folder, self._plan = folder, plan
        config = MllamaConfig.from_pretrained(folder)
        self.network = fresh(config)
        if continued:
            self.network.load_state_dict(_weights(folder))
        self._questions = PatchQuestions(config.vision_config.vision_output_dim)
        self._see, self._read = seen_images, read_words
        if plan.compiled:
            self._see, self._read = (torch.compile(one, dynamic=False) for one in (seen_images, read_words))

    def learn_to_see(self) -> None:
        """Teach the half that sees what each patch shows."""
        vision = [*self.network.model.vision_model.parameters(), *self._questions.parameters()]
        optimizer = _optimizer(vision, 2 * self._plan.rate)
        log = _Log("seeing", self._plan.seeing)
        batches = stream(self._folder, _images, seed=self._plan.seed * 1000, count=self._plan.seeing)
        for step, batch in enumerate(batches):
            _set_rate(optimizer, step, self._plan.seeing, lowest=0.3)
            loss, right = self.patches_loss(self.seen(batch), batch)
            _learn(optimizer, vision, loss)
            log.add(step, patches=loss.item(), **right)

    def learn_everything(self, out: Path) -> None:
        """Teach everything together, and write the weights now and then."""
        plan = self._plan
        every = [*self.network.parameters(), *self._questions.parameters()]
        optimizer = _optimizer(every, plan.rate)
        log = _Log("together", plan.together)
        kinds = _Alternating(plan.talks)
        for step, batch in enumerate(
            stream(self._folder, kinds, seed=plan.seed * 1000 + 1, count=plan.together)
        ):
            _set_rate(optimizer, step, plan.together, lowest=0.02)
            seen = self.seen(batch)
            words = self.words_loss(seen, batch)
            patches, right = self.patches_loss(seen, batch)
            _learn(optimizer, every, words + _PATCHES_WEIGH * patches)
            log.add(step, **{"talks" if kinds.are_talks(step) else "pictures": words.item()}, **right)
            if step % 500 == 499:
                self.save(out)
        self.save(out)

    def save(self, out: Path) -> None:
        """Write the weights, as floats of 16 bits."""
        state = {name: weights.to(torch.bfloat16) for name, weights in self.network.state_dict().items()}
        self.network.save_pretrained(out, state_dict=state)

    def seen(self, batch: Batch) -> torch.Tensor:
        """Look at the images of a batch: (images, 1 + patches, width)."""
        with torch.autocast("cpu", torch.bfloat16):
            return self._see(self.network, torch.from_numpy(batch.tiles))

    def patches_loss(self, seen: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        """Compare what patches show with what the network says of them; also the shares of right answers."""
        return self._questions.loss(
            seen.float(), *(torch.from_numpy(one) for one in (batch.labels, batch.places, batch.middles))
        )

    def words_loss(self, seen: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Compare what the network would say with what it should."""
        ids, taught = torch.from_numpy(batch.ids), torch.from_numpy(batch.taught)[:, 1:]
        with torch.autocast("cpu", torch.bfloat16):
            states = self.network.model.multi_modal_projector(seen)
            blind = len(ids) - len(states)
            if blind:
                states = torch.cat([states, states.new_zeros(blind, *states.shape[1:])])
            model = self.network.model.language_model
            hidden = self._read(model, ids, states, torch.from_numpy(batch.sees))
            scores = self.network.lm_head(hidden[:, :-1][taught])
        return functional.cross_entropy(scores.float(), ids[:, 1:][taught])


class _Alternating:
    """Which kind of batch comes when; a class, because it goes to another process."""

    def __init__(self, talks: float) -> None:
        self._talks = talks

    def are_talks(self, step: int) -> bool:
        return int((step + 1) * self._talks) > int(step * self._talks)

    def __call__(self, maker: Maker, step: int) -> Batch:
        return maker.talks() if self.are_talks(step) else maker.images()


def _images(maker: Maker, step: int) -> Batch:  # noqa: ARG001 - as `stream` calls it
    return maker.images()


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return MllamaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).state_dict()


def _optimizer(parameters: Sequence[torch.Tensor], rate: float) -> torch.optim.Optimizer:
    wide = [one for one in parameters if one.dim() >= 2]
    narrow = [one for one in parameters if one.dim() < 2]
    groups = [{"params": wide, "weight_decay": 0.03}, {"params": narrow, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)


def _set_rate(optimizer: torch.optim.Optimizer, step: int, steps: int, *, lowest: float) -> None:
    """Rise in the first 150 steps, then fall along a cosine to a share of the highest."""
    wave = 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimizer.param_groups:
        highest = group.setdefault("initial_lr", group["lr"])
        group["lr"] = highest * min(1, (step + 1) / 150) * (lowest + (1 - lowest) * wave)


def _learn(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor], loss: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


class _Log:
    """Prints a line of JSON every fifty steps: means since the last one."""

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
    """Train, and write a folder that can be loaded."""
    defaults = Plan()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument(
        "--from-nothing", action="store_true", help="begin without weights, with a new tokenizer"
    )
    parser.add_argument("--seeing", type=int, default=defaults.seeing, help="steps for the half that sees")
    parser.add_argument("--together", type=int, default=defaults.together, help="steps for everything")
    parser.add_argument("--rate", type=float, default=defaults.rate, help="the highest learning rate")
    parser.add_argument(
        "--talks", type=float, default=defaults.talks, help="the share of steps that are about long talks"
    )
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument(
        "--threads", type=int, default=2, help="of the processor; another number rounds differently"
    )
    parser.add_argument("--plainly", action="store_true", help="compile nothing")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    if given.from_nothing:
        lay(given.out)
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
    trainer.learn_to_see()
    trainer.learn_everything(given.out)


if __name__ == "__main__":
    main()
