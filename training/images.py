"""Draws the scenes and charts that the tiny model learns from."""

import math
from functools import cache
from random import Random

from training.canvas import (
    BAR,
    COLORS,
    FROM_LEFT,
    GROUNDS,
    PLACES,
    SHAPES,
    SIDE,
    Canvas,
    Drawing,
    Thing,
    near,
    some_size,
)

NEVER_TRAINED = frozenset({("purple", "star"), ("green", "cross"), ("orange", "triangle")})
"""Pairs of colour and shape held out from training, to test that the model combines them."""

_TURN = {"circle": 0, "square": 14, "triangle": 20, "star": 18, "cross": 14}
"""Max rotation of a shape in degrees, so that it still is the same shape."""


def scene(chance: Random, *, unseen: bool = False, count: int | None = None, plain: bool = False) -> Drawing:
    """Draw shapes on a plain ground.

    Args:
        chance: Draws the lots.
        unseen: Whether the first shape is one of those pairs that are never trained.
        count: How many shapes; by default 1 to 6.
        plain: Whether the image is square and its shapes are filled and upright.

    Returns:
        The image.
    """
    width, height = some_size(chance, plain=plain)
    most = 6 if min(width, height) > 0.6 * SIDE else 3
    count = count or min(most, chance.choices(range(1, 7), (4, 4, 4, 4, 3, 3))[0])
    ground = chance.choice(list(GROUNDS))
    canvas = Canvas(chance, width, height, near(chance, GROUNDS[ground], 8))
    lined, turned = not plain and chance.random() < 0.2, not plain and chance.random() < 0.4
    things = []
    for (color, shape), (x, y, radius) in zip(
        _pairs(chance, count, unseen=unseen), _spots(chance, count, width, height), strict=False
    ):
        line = chance.uniform(1.8, 5) if lined and radius > 9 else 0.0
        turn = chance.uniform(-1, 1) * _TURN[shape] if turned else 0.0
        thing = Thing(color, shape, x / width, y / height)
        place = 1 + PLACES.index(thing.place) if thing.place else 0
        label = 1 + SHAPES.index(shape) * 8 + list(COLORS).index(color), place
        draw_shape(canvas, shape, near(chance, COLORS[color]), (x, y, radius), label, turn=turn, line=line)
        things.append(thing)
    return canvas.drawing("scene", things, ground=ground)


def draw_shape(canvas, shape, color, where, label, *, turn=0.0, line=0.0):
    """Draw a shape around (x, y) with a radius, turned by so many degrees."""
    x, y, radius = where
    if shape == "circle":
        canvas.ellipse([x - radius, y - radius, x + radius, y + radius], color, label, line)
        return
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    points = [
        (x + radius * (a * cos - b * sin), y + radius * (a * sin + b * cos)) for a, b in _corners(shape)
    ]
    canvas.polygon(points, color, label, line)


@cache
def _corners(shape):
    match shape:
        case "square":
            return [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]
        case "triangle":
            return [(0, -1), (0.95, 0.8), (-0.95, 0.8)]
        case "star":
            turns = [(-math.pi / 2 + k * math.pi / 5, 0.45 if k % 2 else 1.1) for k in range(10)]
            return [(far * math.cos(turn), far * math.sin(turn)) for turn, far in turns]
    w = 0.33
    return [
        (-w, -1),
        (w, -1),
        (w, -w),
        (1, -w),
        (1, w),
        (w, w),
        (w, 1),
        (-w, 1),
        (-w, w),
        (-1, w),
        (-1, -w),
        (-w, -w),
    ]


def chart(chance: Random) -> Drawing:
    """Draw a chart of two to five bars of different colours and heights."""
    width, height = some_size(chance, plain=chance.random() < 0.3, least=0.55)
    canvas = Canvas(chance, width, height, near(chance, (250, 250, 250), 5))
    count = chance.randint(2, 5)
    colors = chance.sample(list(COLORS), count)
    steps = chance.sample(range(1, 9), count)
    left, floor, room = chance.uniform(4, 14), height - chance.uniform(5, 14), chance.uniform(0.55, 0.9)
    pitch = (width - left - chance.uniform(3, 12)) / count
    for place, (color, step) in enumerate(zip(colors, steps, strict=True)):
        begin, top = left + (place + (1 - room) / 2) * pitch, floor - (floor - 5) * step / 8.5
        label = 1 + BAR * 8 + list(COLORS).index(color), FROM_LEFT + place
        canvas.box([begin, top, begin + room * pitch, floor], near(chance, COLORS[color]), label)
    if chance.random() < 0.7:
        ink, thin = near(chance, (60, 60, 60), 40), chance.uniform(0.7, 1.5)
        canvas.box([left - 1, floor, width - 3, floor + thin], ink, None)
        canvas.box([left - 1 - thin, 3, left - 1, floor + thin], ink, None)
    by_height = [color for _, color in sorted(zip(steps, colors, strict=True))]
    bars = [Thing(color, "bar", (place + 0.5) / count, 0.5) for place, color in enumerate(colors)]
    return canvas.drawing("chart", bars, tallest=by_height[-1], shortest=by_height[0])


def _pairs(chance, count, *, unseen):
    """Draw colours and shapes; often several of a kind, so that there is something to count."""

    def pair(*, held):
        while True:
            drawn = chance.choice(list(COLORS)), chance.choice(SHAPES)
            if (drawn in NEVER_TRAINED) == held:
                return drawn

    first = pair(held=unseen)
    alike = chance.random() < 0.45
    others = (first if alike and chance.random() < 0.75 else pair(held=False) for _ in range(count - 1))
    return [first, *others]


def _spots(chance, count, width, height):
    """Find places that don't touch: (x, y, radius)."""
    short = min(width, height)
    if count > 1 and short == SIDE and chance.random() < 0.5:
        return _grid_spots(chance, count)
    largest = {1: 0.45, 2: 0.24, 3: 0.2}.get(count, 0.165) * short
    smallest = min(largest, 10 + (3 if count == 1 else 0))
    while True:
        spots = []
        for _ in range(60):
            radius = chance.uniform(smallest, largest)
            x, y = chance.uniform(radius, width - radius), chance.uniform(radius, height - radius)
            if all(math.dist((x, y), (a, b)) > 1.15 * (radius + c) + 2 for a, b, c in spots):
                spots.append((x, y, radius))
            if len(spots) == count:
                return spots
        largest = max(smallest, largest * 0.93)


def _grid_spots(chance, count):
    cell = SIDE / 3
    spots = []
    for place in chance.sample(range(9), count):
        radius = chance.uniform(10.5, 17)
        shift = cell / 2 - radius + 1
        x, y = ((part + 0.5) * cell + chance.uniform(-shift, shift) for part in (place % 3, place // 3))
        spots.append((x, y, radius))
    return spots
