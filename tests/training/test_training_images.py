"""What is drawn for training, and what is said of it, is true."""

import random

import numpy as np
import pytest

from training.batches import tile_of
from training.canvas import CHARACTERS, COLORS, FIRST_CHARACTER, SHAPES, Thing
from training.foundation import IMAGE_SIZE, PATCH_SIZE
from training.images import NEVER_TRAINED, chart, scene
from training.questions import Asker, describe
from training.signs import UNSEEN_WORDS, WORDS, random_letters, sign

KINDS = {"scene": scene, "sign": sign, "chart": chart}


@pytest.mark.parametrize("draw", KINDS.values(), ids=KINDS)
def test_the_same_seed_draws_the_same(draw):
    one, other = draw(random.Random(5)), draw(random.Random(5))
    assert one.image.tobytes() == other.image.tobytes()
    assert one.labels.tobytes() == other.labels.tobytes()
    assert draw(random.Random(6)).image.tobytes() != one.image.tobytes()


@pytest.mark.parametrize("seed", range(30))
def test_each_thing_of_a_scene_is_where_the_maps_say(seed):
    drawing = scene(random.Random(seed))
    pixels, labels = np.asarray(drawing.image).astype(int), np.asarray(drawing.labels)
    for thing in drawing.things:
        label = 1 + SHAPES.index(thing.shape) * 8 + list(COLORS).index(thing.color)
        rows, columns = np.nonzero(labels == label)
        assert len(rows), f"{thing} is nowhere"
        distances = [np.abs(pixels[labels == label] - color).sum(1).min() for color in COLORS.values()]
        assert list(COLORS)[int(np.argmin(distances))] == thing.color
        near = np.hypot(columns / labels.shape[1] - thing.x, rows / labels.shape[0] - thing.y)
        assert near.min() < 0.06


@pytest.mark.parametrize(
    ("x", "y", "place"),
    [
        (0.1, 0.1, "top left"),
        (0.5, 0.5, "center"),
        (0.5, 0.9, "bottom"),
        (0.9, 0.5, "right"),
        (0.4, 0.5, None),
    ],
)
def test_a_place_is_named_only_where_it_is_clear(x, y, place):
    assert Thing("red", "star", x, y).place == place


def test_what_is_kept_from_training_never_comes():
    chance = random.Random(1)
    pairs = {(thing.color, thing.shape) for _ in range(500) for thing in scene(chance).things}
    assert not pairs & NEVER_TRAINED
    assert len(pairs) == len(COLORS) * len(SHAPES) - len(NEVER_TRAINED)
    assert scene(chance, unseen=True, count=1).things[0].shape in {shape for _, shape in NEVER_TRAINED}
    assert not set(UNSEEN_WORDS) & ({random_letters(chance) for _ in range(3000)} | set(WORDS))


def test_a_sign_is_labelled_letter_by_letter():
    labels = np.asarray(sign(random.Random(3), text="EXIT", plain=True).labels)
    across = [value for value in labels.max(0) if value]
    seen = [value for place, value in enumerate(across) if place == 0 or across[place - 1] != value]
    assert "".join(chr(ord("A") + value - FIRST_CHARACTER - 10) for value in seen) == "EXIT"


def test_the_middle_of_each_thing_is_marked_where_it_is():
    side = IMAGE_SIZE // PATCH_SIZE
    for seed in range(30):
        drawing = scene(random.Random(seed), plain=True)
        marked = {
            (thing.x, thing.y, 1 + SHAPES.index(thing.shape) * 8 + list(COLORS).index(thing.color))
            for thing in drawing.things
        }
        middles = tile_of(drawing)[3].reshape(side, side)
        assert np.count_nonzero(middles) == len(marked)
        for x, y, label in marked:
            row, column = int(y * side), int(x * side)
            assert label in middles[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]


def test_a_sign_can_be_read_to_its_end():
    last = FIRST_CHARACTER + CHARACTERS.index("R")
    for seed in range(200):
        across = np.asarray(sign(random.Random(seed), text="DANGER").labels).max(0)
        assert last in across, f"seed {seed}: the last letter is cut off"
        assert across[-1] == 0, f"seed {seed}: it reaches the edge"


def test_a_chart_knows_its_tallest_and_shortest_bar():
    for seed in range(20):
        drawing = chart(random.Random(seed))
        labels = np.asarray(drawing.labels)
        heights = {}
        for bar in drawing.things:
            where = labels == 1 + len(SHAPES) * 8 + list(COLORS).index(bar.color)
            heights[bar.color] = where.any(1).sum()
        assert max(heights, key=heights.get) == drawing.tallest
        assert min(heights, key=heights.get) == drawing.shortest


@pytest.mark.parametrize("draw", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("seed", range(12))
def test_a_tile_is_what_the_package_makes_of_the_image(draw, seed, tiny_image_processor):
    drawing = draw(random.Random(seed))
    made = tiny_image_processor(images=[[drawing.image]], return_tensors="np")["pixel_values"][0, 0, 0]
    tile, labels, places, middles = tile_of(drawing)
    assert np.abs(made * 127.5 + 127.5 - tile).max() < 0.01
    patches = (IMAGE_SIZE // PATCH_SIZE) ** 2
    assert labels.shape == places.shape == middles.shape == (patches,)
    assert np.count_nonzero(middles) <= max(len(drawing.things), len(drawing.text))


def test_every_question_has_the_answer_that_the_image_gives():
    drawing = scene(random.Random(0), count=1, plain=True)
    thing = drawing.things[0]
    asker = Asker(random.Random(0))
    assert asker.ask(drawing, "color").answer == thing.color
    assert asker.ask(drawing, "shape").answer == thing.shape
    assert asker.ask(drawing, "count_all").answer == "1"
    assert asker.ask(drawing, "describe").answer == describe(drawing)
    assert f"{thing.color} {thing.shape} on a {drawing.ground} background." in describe(drawing)


def test_yes_and_no_are_about_as_frequent():
    asker, chance = Asker(random.Random(2)), random.Random(2)
    answers = [asker.ask(scene(chance), "exists").answer for _ in range(600)]
    assert 0.35 < answers.count("Yes") / len(answers) < 0.65
