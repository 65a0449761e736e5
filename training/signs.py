"""Draws signs, the training images for reading."""

import importlib.util
import string
from functools import cache
from pathlib import Path
from random import Random

from PIL import ImageFont

from training.canvas import COLORS, Canvas, Drawing, near, some_size

WORDS = (
    "STOP EXIT OPEN CLOSED SALE TAXI BUS CAFE HOTEL BANK PARK ZOO HELP FIRE POLICE EAST WEST NORTH SOUTH PUSH PULL ENTER "
    "DANGER SLOW YIELD FREE HOME LOVE MUSIC PIZZA WATER TEA SHOP BOOKS GYM DOG CAT RED BLUE GREEN YES NO HELLO WORLD CITY "
    "ROAD SCHOOL MENU BEER COLD HOT WAIT WALK TOUR NEWS MAIL LUCK STAR MOON SUN LAKE HILL FARM FISH BIRD MILK CAKE RICE "
    "SOUP DATA CODE TEST LLAMA VISION"
).split()
UNSEEN_WORDS = ("GATE", "PORT", "SAND", "WINE", "JUMP", "KIWI", "TRAIN", "DESK", "ROBOT", "QUIZ")
"""Words held out from training."""

_FONTS = (
    "DejaVuSans-Bold",
    "DejaVuSans",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono",
    "DejaVuSerif-Bold",
    "",  # Pillow's own
    "",
)


def sign(chance: Random, *, text: str | None = None, plain: bool = False) -> Drawing:
    """Draw a sign with a word in capitals, or a number.

    Args:
        chance: Draws the lots.
        text: What it says; by default a known word, letters in any order, or a number.
        plain: Whether the image is square.

    Returns:
        The image.
    """
    text = text or _some_text(chance)
    name = chance.choice(list(COLORS))
    color = near(chance, COLORS[name])
    while True:
        width, height = some_size(chance, plain=plain, least=0.4)
        canvas = Canvas(chance, width, height, near(chance, (235, 235, 235), 20))
        font, wide, high = _fitting_font(chance, text, canvas.scale, width - 16, height - 12)
        if wide <= width - 16:  # else its end would be cut off, and nobody could read it
            break
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
    return canvas.drawing("sign", text=text, color=name)


def random_letters(chance: Random) -> str:
    """Draw two to five letters that are no held-out word."""
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
    """Find matplotlib's fonts, so that signs look the same on every machine."""
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        raise RuntimeError("Signs are drawn in the fonts that come with matplotlib: pip install matplotlib")
    return Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"
