"""Draws pictures such as the tiny model knows: shapes of one colour on a plain ground, and signs."""

import io
import math
import random

from PIL import Image, ImageDraw, ImageFont

from training.canvas import COLORS, SHAPES

SIDE = 224


def draw_shape(draw, shape, color, center, radius):
    x, y = center
    match shape:
        case "circle":
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=color)
        case "square":
            half = radius * 0.88
            draw.rectangle([x - half, y - half, x + half, y + half], fill=color)
        case "triangle":
            corners = [
                (x, y - radius),
                (x + 0.95 * radius, y + 0.8 * radius),
                (x - 0.95 * radius, y + 0.8 * radius),
            ]
            draw.polygon(corners, fill=color)
        case "star":
            turns = [(-math.pi / 2 + k * math.pi / 5, radius * (0.45 if k % 2 else 1.1)) for k in range(10)]
            draw.polygon([(x + r * math.cos(a), y + r * math.sin(a)) for a, r in turns], fill=color)
        case "cross":
            arm = radius * 0.33
            draw.rectangle([x - arm, y - radius, x + arm, y + radius], fill=color)
            draw.rectangle([x - radius, y - arm, x + radius, y + arm], fill=color)


def scene(*objects):
    """Draw (colour, shape, column, row) on a grid of three by three; a single object stands large in the middle."""
    image = Image.new("RGB", (SIDE, SIDE), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    if len(objects) == 1:
        color, shape = objects[0][:2]
        draw_shape(draw, shape, COLORS[color], (SIDE / 2, SIDE / 2), SIDE * 0.25)
        return image
    cell = SIDE / 3
    for color, shape, column, row in objects:
        draw_shape(draw, shape, COLORS[color], ((column + 0.5) * cell, (row + 0.5) * cell), SIDE * 0.13)
    return image


def one_shape(seed):
    """Draw one shape of a random kind, colour, size and place; returns the image, its colour and its shape."""
    chance = random.Random(seed)
    color, shape = chance.choice(sorted(COLORS)), chance.choice(SHAPES)
    image = Image.new("RGB", (SIDE, SIDE), (255, 255, 255))
    radius = chance.randint(36, 78)
    center = chance.randint(radius + 4, SIDE - radius - 4), chance.randint(radius + 4, SIDE - radius - 4)
    draw_shape(ImageDraw.Draw(image), shape, COLORS[color], center, radius)
    return image, color, shape


def sign(text, color="red"):
    """Draw a sign with a word in capitals or a number."""
    image = Image.new("RGB", (SIDE, SIDE), (235, 235, 235))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(72)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    x, y = (SIDE - (right - left)) / 2, (SIDE - (bottom - top)) / 2
    draw.rectangle([x - 16, y - 16, x + right - left + 16, y + bottom - top + 16], fill=COLORS[color])
    draw.text((x - left, y - top), text, font=font, fill=(250, 250, 250))
    return image


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


SAMPLES = {
    "circle": lambda: scene(("blue", "circle", 1, 1)),
    "shapes": lambda: scene(
        ("red", "circle", 0, 0), ("yellow", "star", 2, 0), ("red", "circle", 1, 1), ("green", "cross", 0, 2)
    ),
    "sign": lambda: sign("EXIT", "green"),
}
"""How the images of `llama_vision.demo` were drawn."""
