"""What goes through the layers: whole prompts at first, then one token of every answer at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from llama_vision.backends.local.decoder import Pass, Sight
from llama_vision.backends.local.inputs import Prompt
from llama_vision.backends.local.slots import Slots

_WORDS_AT_ONCE = 1024
"""Of a prompt. What each word may look at takes memory by the square."""


def prompt_passes(prompts: Sequence[Prompt], places: Sequence[int], like: torch.Tensor) -> Iterator[Pass]:
    """Cut prompts into passes.

    Args:
        prompts: Those with pictures first; the pictures are seen. Shorter ones are filled up at the end, where what is
            written into the slots is overwritten before anyone may look at it.
        places: The row of the slots for each.
        like: A tensor of the right device and precision.

    Yields:
        Passes for all of the prompts, from the first words to the last.

    """
    device = like.device
    longest = max(len(prompt.ids) for prompt in prompts)
    tokens = torch.tensor(
        [prompt.ids + [0] * (longest - len(prompt.ids)) for prompt in prompts], device=device
    )
    rows = torch.tensor(places, device=device)[:, None]
    columns = torch.arange(longest, device=device)
    sight = _sight_of_prompts([prompt for prompt in prompts if prompt.glimpses], longest, like)
    for start in range(0, longest, _WORDS_AT_ONCE):
        stop = min(start + _WORDS_AT_ONCE, longest)
        positions = columns[start:stop]
        yield Pass(
            tokens=tokens[:, start:stop],
            positions=positions.expand(len(prompts), -1),
            places=rows,
            reach=stop,
            veil=_veil(columns[:stop] <= positions[:, None], like)[None, None],
            sight=sight and _between(sight, start, stop),
            in_order=False,
        )


@dataclass(frozen=True, slots=True)
class StepShape:
    """The shapes of a step. Steps of equal shapes do the same work on other numbers.

    Attributes:
        rows: How many rows.
        reach: How many columns of words they look at.
        seeing: How many of them look at pictures; they come first.
        columns: At how many columns of pictures they look.
        uneven: Whether some look at fewer words than others.
        mixed: Whether some see fewer columns of pictures than others.

    """

    rows: int
    reach: int
    seeing: int
    columns: int
    uneven: bool
    mixed: bool


def step_pass(numbers: torch.Tensor, shape: StepShape, slots: Slots) -> Pass:
    """Let every answer go on by a token.

    Args:
        numbers: For each row its token, its position, and how many columns of pictures it sees (rows, 3).
        shape: The shapes.
        slots: What is remembered.

    Returns:
        The pass; no number of it has to be known on this side of the device.

    """
    tokens, positions, widths = (numbers[: shape.rows, column : column + 1] for column in range(3))
    like = next(iter(slots.words.keys.values()))
    veil = None
    if shape.uneven:
        veil = _veil(torch.arange(shape.reach, device=numbers.device) <= positions, like)[:, None, None]
    return Pass(
        tokens=tokens,
        positions=positions,
        places=torch.arange(shape.rows, device=numbers.device)[:, None],
        reach=shape.reach,
        veil=veil,
        sight=_sight_of_step(widths[: shape.seeing], shape, slots) if shape.seeing else None,
        in_order=True,
    )


def _sight_of_step(widths: torch.Tensor, shape: StepShape, slots: Slots) -> Sight:
    store = slots.pictures
    keys = {layer: one[: shape.seeing, :, : shape.columns] for layer, one in store.keys.items()}
    values = {layer: one[: shape.seeing, :, : shape.columns] for layer, one in store.values.items()}
    if not shape.mixed:
        return Sight(shape.seeing, keys, values)
    like = next(iter(keys.values()))
    # Whoever sees nothing looks at one column, since nothing can't be averaged, and takes nothing from it.
    seen = torch.arange(shape.columns, device=widths.device) < widths.clamp(min=1)
    return Sight(
        shape.seeing, keys, values, _veil(seen, like)[:, None, None], (widths > 0).to(like)[..., None]
    )


def _sight_of_prompts(prompts: Sequence[Prompt], longest: int, like: torch.Tensor) -> Sight | None:
    """Put the pictures of each prompt beside one another, and work out which words see them."""
    if not prompts:
        return None
    seen = [[glimpse.picture.seen for glimpse in prompt.glimpses] for prompt in prompts]
    pictures = [[one for one in row if one is not None] for row in seen]
    columns = max(sum(one.columns for one in row) for row in pictures)
    visible = torch.zeros(len(prompts), 1, longest, columns, dtype=torch.bool, device=like.device)
    keys: dict[int, torch.Tensor] = {}
    values: dict[int, torch.Tensor] = {}
    for ours, theirs in ((keys, "keys"), (values, "values")):
        for layer, one in getattr(pictures[0][0], theirs).items():
            ours[layer] = like.new_zeros(len(prompts), one.shape[0], columns, one.shape[2])
    for row, prompt in enumerate(prompts):
        end = 0
        for glimpse, picture in zip(prompt.glimpses, pictures[row], strict=True):
            begin, end = end, end + picture.columns
            visible[row, 0, glimpse.start : glimpse.end, begin:end] = True
            for ours, theirs in ((keys, picture.keys), (values, picture.values)):
                for layer, one in theirs.items():
                    ours[layer][row, :, begin:end] = one
    sees = visible.any(-1, keepdim=True)
    return Sight(len(prompts), keys, values, _veil(visible | ~sees, like), sees[:, 0].to(like))


def _between(sight: Sight, start: int, stop: int) -> Sight:
    if sight.veil is None or sight.open is None:
        return sight
    return replace(sight, veil=sight.veil[:, :, start:stop], open=sight.open[:, start:stop])


def _veil(visible: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return like.new_zeros(()).masked_fill(~visible, float("-inf"))
