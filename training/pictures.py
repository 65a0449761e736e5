"""Draws the pictures that the tiny model learns from, with a map of what stands where.

Lengths are in units of which the longer side of a picture has 112; how many pixels a unit has is left to chance, because users'
pictures have any size.
"""

import importlib.util
import math
import string
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw, ImageFont

SIDE = 112
COLORS = {
    "red": (220, 30, 30),
    "green": (30, 160, 50),
    "blue": (40, 70, 220),
    "yellow": (240, 215, 30),
    "purple": (140, 40, 170),
    "orange": (245, 140, 20),
    "black": (20, 20, 20),
    "pink": (250, 130, 190),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
GROUNDS = {"white": (255, 255, 255), "gray": (190, 190, 190)}
CHARACTERS = string.digits + string.ascii_uppercase
BAR = len(SHAPES)
FIRST_CHARACTER = 100
PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
FROM_LEFT = 1 + len(PLACES)
NEVER_TRAINED = frozenset({("purple", "star"), ("green", "cross"), ("orange", "triangle")})
"""Pairs of colour and shape that training never shows, to find out whether the model knows the two apart."""

WORDS = (
    "STOP EXIT OPEN CLOSED SALE TAXI BUS CAFE HOTEL BANK PARK ZOO HELP FIRE POLICE EAST WEST NORTH SOUTH PUSH PULL ENTER "
    "DANGER SLOW YIELD FREE HOME LOVE MUSIC PIZZA WATER TEA SHOP BOOKS GYM DOG CAT RED BLUE GREEN YES NO HELLO WORLD CITY "
    "ROAD SCHOOL MENU BEER COLD HOT WAIT WALK TOUR NEWS MAIL LUCK STAR MOON SUN LAKE HILL FARM FISH BIRD MILK CAKE RICE "
    "SOUP DATA CODE TEST LLAMA VISION"
).split()
UNSEEN_WORDS = ("GATE", "PORT", "SAND", "WINE", "JUMP", "KIWI", "TRAIN", "DESK", "ROBOT", "QUIZ")
"""Words that training shows on no sign."""

_FONTS = (
    "DejaVuSans-Bold",
    "DejaVuSans",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono",
    "DejaVuSerif-Bold",
    "",  # Pillow's own
    "",
)
_TURN = {"circle": 0, "square": 14, "triangle": 20, "star": 18, "cross": 14}
"""By how many degrees a shape may be turned and still be called the same."""


@dataclass(frozen=True, slots=True)
class Thing:
    """A shape in a picture; its middle as a share of the width and of the height."""

    color: str
    shape: str
    x: float
    y: float

    @property
    def place(self) -> str | None:
        """Which of nine places it stands in, such as `top left`; None where it stands between two."""
        row, column = _third(self.y, "top", "bottom"), _third(self.x, "left", "right")
        if row is None or column is None:
            return None
        return f"{row} {column}".strip() or "center"


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture and the truth about it.

    Attributes:
        image: RGB.
        labels: Of the same size; what each pixel belongs to: 0 nothing, 1 + 8 * shape + color, 100 + character.
        places: Of the same size; where that stands: 0 nowhere to name, 1 to 9 one of `PLACES`, 10 and more its number from the left.
        things: The shapes of a scene, or the bars of a chart from left to right.
        kind: `scene`, `sign` or `chart`.
        ground: The colour behind a scene.
        text: What a sign says.
        color: The colour of a sign.
        tallest: The colour of a chart's tallest bar.
        shortest: The colour of its shortest.

    """

    image: Image.Image
    labels: Image.Image
    places: Image.Image
    kind: str
    things: list[Thing] = field(default_factory=list)
    ground: str = "white"
    text: str = ""
    color: str = ""
    tallest: str = ""
    shortest: str = ""


class _Canvas:
    """Draws into a picture and into its maps at once; `label` is what goes into the maps, as a pair."""

    def __init__(self, chance: Random, width: float, height: float, ground: tuple[int, int, int]) -> None:
        self.scale = chance.choice((1, 1, 1.5, 2, 2, 3))
        size = round(width * self.scale), round(height * self.scale)
        self.image = Image.new("RGB", size, ground)
        self.labels, self.places = Image.new("L", size, 0), Image.new("L", size, 0)
        self._draws = [ImageDraw.Draw(one) for one in (self.image, self.labels, self.places)]

    def polygon(self, points, color, label, line=0.0):
        """Draw; with a width of line, the outline alone."""
        scaled = [(x * self.scale, y * self.scale) for x, y in points]
        self._both("polygon", scaled, color, label, line)

    def ellipse(self, box, color, label, line=0.0):
        self._both("ellipse", [edge * self.scale for edge in box], color, label, line)

    def box(self, box, color, label, line=0.0):
        self._both("rectangle", [edge * self.scale for edge in box], color, label, line)

    def text(self, x, y, text, font, color):
        """Draw words whose box begins at (x, y), and label the column of each character."""
        left, top, _, bottom = font.getbbox(text)
        at = x * self.scale, y * self.scale
        self._draws[0].text((at[0] - left, at[1] - top), text, font=font, fill=color)
        for place, character in enumerate(text):
            begin, end = (at[0] - left + font.getlength(text[:count]) for count in (place, place + 1))
            box = [begin, at[1] - 2, max(begin, end - 1), at[1] + bottom - top + 2]
            self._draws[1].rectangle(box, fill=FIRST_CHARACTER + CHARACTERS.index(character))
            self._draws[2].rectangle(box, fill=FROM_LEFT + place)

    def _both(self, what, where, color, label, line):
        width = max(1, round(line * self.scale))
        style = {"outline": color, "width": width} if line else {"fill": color}
        getattr(self._draws[0], what)(where, **style)
        if label is not None:
            for draw, value in zip(self._draws[1:], label, strict=True):
                getattr(draw, what)(where, fill=value)


def scene(chance: Random, *, unseen: bool = False, count: int | None = None, plain: bool = False) -> Drawing:
    """Draw shapes on a plain ground.

    Args:
        chance: Draws the lots.
        unseen: Whether the first shape is one of those pairs that are never trained.
        count: How many shapes; by default 1 to 6.
        plain: Whether the picture is square and its shapes are filled and upright.

    Returns:
        The picture.

    """
    width, height = _size(chance, plain=plain)
    most = 6 if min(width, height) > 0.6 * SIDE else 3
    count = count or min(most, chance.choices(range(1, 7), (4, 4, 4, 4, 3, 3))[0])
    ground = chance.choice(list(GROUNDS))
    canvas = _Canvas(chance, width, height, near(chance, GROUNDS[ground], 8))
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
    return Drawing(canvas.image, canvas.labels, canvas.places, "scene", things=things, ground=ground)


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


def sign(chance: Random, *, text: str | None = None, plain: bool = False) -> Drawing:
    """Draw a sign with a word in capitals, or a number.

    Args:
        chance: Draws the lots.
        text: What it says; by default a known word, letters in any order, or a number.
        plain: Whether the picture is square.

    Returns:
        The picture.

    """
    text = text or _some_text(chance)
    name = chance.choice(list(COLORS))
    color = near(chance, COLORS[name])
    width, height = _size(chance, plain=plain, least=0.4)
    canvas = _Canvas(chance, width, height, near(chance, (235, 235, 235), 20))
    font, wide, high = _fitting_font(chance, text, canvas.scale, width - 16, height - 12)
    x, y = chance.uniform(5, max(5.1, width - wide - 7)), chance.uniform(5, max(5.1, height - high - 7))
    pad = chance.uniform(4, 10)
    box = [max(0, x - pad), max(0, y - pad), min(width - 1, x + wide + pad), min(height - 1, y + high + pad)]
    light = sum(color) > 430
    if chance.random() < 0.5:
        canvas.box(box, color, None)
        ink = (10, 10, 10) if light else (250, 250, 250)
    else:
        canvas.box(box, (250, 250, 250), None)
        canvas.box(box, color, None, line=4 if light else 2)
        ink = (10, 10, 10) if light else color
    canvas.text(x, y, text, font, ink)
    return Drawing(canvas.image, canvas.labels, canvas.places, "sign", text=text, color=name)


def random_letters(chance: Random) -> str:
    """Draw two to five letters that are no word kept back."""
    while True:
        text = "".join(chance.choice(string.ascii_uppercase) for _ in range(chance.randint(2, 5)))
        if text not in UNSEEN_WORDS:
            return text


def number_text(chance: Random) -> str:
    """Draw one to four digits."""
    return "".join(chance.choice(string.digits) for _ in range(chance.randint(1, 4)))


def _some_text(chance):
    return chance.choices((number_text, random_letters, lambda lots: lots.choice(WORDS)), (0.36, 0.38, 0.26))[
        0
    ](chance)


def chart(chance: Random) -> Drawing:
    """Draw a chart of two to five bars of different colours and heights."""
    width, height = _size(chance, plain=chance.random() < 0.3, least=0.55)
    canvas = _Canvas(chance, width, height, near(chance, (250, 250, 250), 5))
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
    maps = canvas.labels, canvas.places
    return Drawing(canvas.image, *maps, "chart", bars, tallest=by_height[-1], shortest=by_height[0])


def near(chance: Random, color: tuple[int, int, int], by: int = 18) -> tuple[int, int, int]:
    """Vary a colour a little."""
    red, green, blue = (max(0, min(255, value + chance.randint(-by, by))) for value in color)
    return red, green, blue


def _third(share, first, last):
    if share < 0.37:
        return first
    if share > 0.63:
        return last
    return "" if 0.43 < share < 0.57 else None


def _size(chance, *, plain, least=0.5):
    """Choose width and height: square, or as screens and photographs are."""
    if plain or chance.random() < 0.5:
        return SIDE, SIDE
    other = SIDE * chance.uniform(least, 0.95)
    return (other, SIDE) if chance.random() < 0.35 else (SIDE, other)


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


def _fitting_font(chance, text, scale, wide, high):
    name = chance.choice(_FONTS)
    for size in range(46, 11, -2):
        font = _font(name, round(size * scale))
        left, top, right, bottom = font.getbbox(text)
        if right - left <= wide * scale and bottom - top <= high * scale:
            break
    smaller = max(13, size - chance.choice((0, 0, 2, 4, 8)))
    font = _font(name, round(min(size, smaller) * scale))
    left, top, right, bottom = font.getbbox(text)
    return font, (right - left) / scale, (bottom - top) / scale


@cache
def _font(name, pixels):
    if not name:
        return ImageFont.load_default(pixels)
    return ImageFont.truetype(str(_font_folder() / f"{name}.ttf"), pixels)


@cache
def _font_folder() -> Path:
    """Find the fonts that matplotlib brings along, so that signs look the same on every machine."""
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        raise RuntimeError("Signs are drawn in the fonts that come with matplotlib: pip install matplotlib")
    return Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"
