"""What goes through the layers: pieces of prompts at first, then one token of every answer at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from llama_vision.backends.local.decoder import Pass, Sight
from llama_vision.backends.local.inputs import Glimpse, Prompt
from llama_vision.backends.local.slots import Slots
from llama_vision.backends.local.vision import Seen


@dataclass(frozen=True, slots=True)
class Piece:
    """Words of a prompt that are read at once.

    Attributes:
        prompt: The prompt; its pictures that these words see are seen.
        place: Its row of the slots, where the words before these stand.
        start: The first of the words.
        stop: The first that is not read.

    """

    prompt: Prompt
    place: int
    start: int
    stop: int

    @property
    def glimpses(self) -> list[Glimpse]:
        """The pictures that any of the words sees."""
        return [one for one in self.prompt.glimpses if one.start < self.stop and one.end > self.start]


def reading_pass(pieces: Sequence[Piece], max_len: int, like: torch.Tensor) -> Pass:
    """Read pieces of prompts together.

    Args:
        pieces: Those that see pictures first. Shorter ones are filled up at the end, where what is written into the slots
            is overwritten before anyone may look at it.
        max_len: The most words of an answer with its prompt.
        like: A tensor of the right device and precision.

    Returns:
        The pass.

    """
    device = like.device
    longest = max(piece.stop - piece.start for piece in pieces)
    reach = min(max(piece.start for piece in pieces) + longest, max_len)
    texts = [piece.prompt.ids[piece.start : piece.stop] for piece in pieces]
    tokens = torch.tensor([text + [0] * (longest - len(text)) for text in texts], device=device)
    starts = torch.tensor([[piece.start] for piece in pieces], device=device)
    # No prompt reaches as far as the last position: an answer has to have room.
    positions = (starts + torch.arange(longest, device=device)).clamp(max=max_len - 1)
    unequal = positions if len({piece.start for piece in pieces}) > 1 else positions[:1]
    places = [piece.place for piece in pieces]
    follow = places == [*range(places[0], places[0] + len(places))]
    return Pass(
        tokens=tokens,
        positions=positions,
        places=torch.tensor(places, device=device)[:, None],
        reach=reach,
        veil=_veil(torch.arange(reach, device=device) <= unequal[:, None, :, None], like),
        sight=_sight_of_pieces([piece for piece in pieces if piece.glimpses], longest, like),
        first=places[0] if follow else None,
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
        first=0,
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


def _sight_of_pieces(pieces: Sequence[Piece], longest: int, like: torch.Tensor) -> Sight | None:
    """Put the pictures of each piece beside one another, and work out which words see them."""
    if not pieces:
        return None
    pictures = [_pictures(piece) for piece in pieces]
    columns = max(sum(seen.columns for _, seen in row) for row in pictures)
    visible = torch.zeros(len(pieces), 1, longest, columns, dtype=torch.bool, device=like.device)
    keys: dict[int, torch.Tensor] = {}
    values: dict[int, torch.Tensor] = {}
    for ours, theirs in ((keys, pictures[0][0][1].keys), (values, pictures[0][0][1].values)):
        for layer, one in theirs.items():
            ours[layer] = like.new_zeros(len(pieces), one.shape[0], columns, one.shape[2])
    for row, piece in enumerate(pieces):
        end = 0
        for glimpse, seen in pictures[row]:
            begin, end = end, end + seen.columns
            first = max(glimpse.start - piece.start, 0)
            visible[row, 0, first : glimpse.end - piece.start, begin:end] = True
            for ours, theirs in ((keys, seen.keys), (values, seen.values)):
                for layer, one in theirs.items():
                    ours[layer][row, :, begin:end] = one
    sees = visible.any(-1, keepdim=True)
    return Sight(len(pieces), keys, values, _veil(visible | ~sees, like), sees[:, 0].to(like))


def _pictures(piece: Piece) -> list[tuple[Glimpse, Seen]]:
    return [(glimpse, seen) for glimpse in piece.glimpses if (seen := glimpse.picture.seen) is not None]


def _veil(visible: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return like.new_zeros(()).masked_fill(~visible, float("-inf"))
