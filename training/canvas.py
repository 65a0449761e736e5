"""A canvas that draws an image and its label maps at once.

Lengths are in units of which the longer side of an image has 112; the number of pixels per unit is random, because users'
images have any size.
"""

import string
from dataclasses import dataclass, field
from random import Random
from statistics import fmean

from PIL import Image, ImageDraw

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


@dataclass(frozen=True, slots=True)
class Thing:
    """A shape in an image; its centre as a fraction of width and height."""

    color: str
    shape: str
    x: float
    y: float

    @property
    def place(self) -> str | None:
        """Which of nine regions it is in, such as `top left`; None between two."""
        row, column = _third(self.y, "top", "bottom"), _third(self.x, "left", "right")
        if row is None or column is None:
            return None
        return f"{row} {column}".strip() or "center"


@dataclass(frozen=True, slots=True)
class Drawing:
    """An image and its ground truth.

    Attributes:
        image: RGB.
        labels: Of the same size; what each pixel belongs to: 0 nothing, 1 + 8 * shape + color, 100 + character.
        places: Of the same size; where that stands: 0 nowhere to name, 1 to 9 one of `PLACES`, 10 and more its number from the left.
        middles: Centre of each thing and character, as a fraction of width and height, with its label.
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
    middles: list[tuple[float, float, int]]
    kind: str
    things: list[Thing] = field(default_factory=list)
    ground: str = "white"
    text: str = ""
    color: str = ""
    tallest: str = ""
    shortest: str = ""


class Canvas:
    """Draws into an image and its label maps at once; `label` is a pair of label and place.

    Args:
        chance: The random generator.
        width: In units.
        height: In units.
        ground: The colour of all that is not drawn on.
    """

    def __init__(self, chance: Random, width: float, height: float, ground: tuple[int, int, int]) -> None:
        self.scale = chance.choice((1, 1, 1.5, 2, 2, 3))
        size = round(width * self.scale), round(height * self.scale)
        self.image = Image.new("RGB", size, ground)
        self.labels, self.places = Image.new("L", size, 0), Image.new("L", size, 0)
        self.middles: list[tuple[float, float, int]] = []
        self._draws = [ImageDraw.Draw(one) for one in (self.image, self.labels, self.places)]

    def polygon(self, points, color, label, line=0.0):
        """Draw; with a width of line, the outline alone."""
        scaled = [(x * self.scale, y * self.scale) for x, y in points]
        self._both("polygon", scaled, color, label, line)

    def ellipse(self, box, color, label, line=0.0):
        """Draw one that fills a box."""
        self._both("ellipse", [edge * self.scale for edge in box], color, label, line)

    def box(self, box, color, label, line=0.0):
        """Draw a box."""
        self._both("rectangle", [edge * self.scale for edge in box], color, label, line)

    def text(self, x, y, text, font, color):
        """Draw text whose box begins at (x, y), and label the column of each character."""
        left, top, _, bottom = font.getbbox(text)
        at = x * self.scale, y * self.scale
        self._draws[0].text((at[0] - left, at[1] - top), text, font=font, fill=color)
        for place, character in enumerate(text):
            begin, end = (at[0] - left + font.getlength(text[:count]) for count in (place, place + 1))
            box = [begin, at[1] - 2, max(begin, end - 1), at[1] + bottom - top + 2]
            self._map(box, FIRST_CHARACTER + CHARACTERS.index(character), FROM_LEFT + place)

    def _both(self, what, where, color, label, line):
        width = max(1, round(line * self.scale))
        style = {"outline": color, "width": width} if line else {"fill": color}
        getattr(self._draws[0], what)(where, **style)
        if label is not None:
            self._map(where, *label, what=what)

    def _map(self, where, label, place, what="rectangle"):
        """Draw into the label maps, and record the centre."""
        for draw, value in zip(self._draws[1:], (label, place), strict=True):
            getattr(draw, what)(where, fill=value)
        corners = where if what == "polygon" else [where[:2], where[2:]]
        x, y = (fmean((min(edges), max(edges))) for edges in zip(*corners, strict=True))
        self.middles.append((x / self.image.width, y / self.image.height, label))

    def drawing(self, kind, things=(), **facts):
        """Give the image with its ground truth."""
        return Drawing(self.image, self.labels, self.places, self.middles, kind, list(things), **facts)


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


def some_size(chance: Random, *, plain: bool, least: float = 0.5) -> tuple[float, float]:
    """Choose width and height: square, or as screens and photographs are."""
    if plain or chance.random() < 0.5:
        return SIDE, SIDE
    other = SIDE * chance.uniform(least, 0.95)
    return (other, SIDE) if chance.random() < 0.35 else (SIDE, other)
