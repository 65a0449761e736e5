"""Questions about a drawn image, with their answers."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from training.canvas import COLORS, PLACES, SHAPES, Drawing, Thing
from training.phrases import carelessly, phrase
from training.signs import WORDS, number_text, random_letters

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the one right answer, and what kind it is."""

    text: str
    answer: str
    kind: str


class Asker:
    """Makes questions.

    Args:
        chance: Draws the lots.
        unheard: Ask only in words that training leaves out.
        careless: Ask as people do.
    """

    def __init__(self, chance: Random, *, unheard: bool = False, careless: bool = False) -> None:
        self._chance = chance
        self._unheard = unheard
        self._careless = careless
        self._kinds: dict[str, dict[str, tuple[float, Callable[[Drawing], tuple[str, str] | None]]]] = {
            "scene": {
                "color": (2, self._color),
                "shape": (2, self._shape),
                "where": (2.5, self._where),
                "at": (3, self._at),
                "count_all": (2.5, self._count_all),
                "count_shape": (4, self._count_shape),
                "count_color": (3.5, self._count_color),
                "count_both": (3, self._count_both),
                "exists": (2.5, self._exists),
                "describe": (3.5, self._describe),
                "kind": (0.3, self._kind),
                "json": (5, self._json),
            },
            "sign": {
                "read": (7, self._read),
                "says": (1, self._says),
                "sign_color": (1, self._sign_color),
                "json": (1, self._json_of_sign),
                "describe": (1.5, self._describe),
                "kind": (0.3, self._kind),
            },
            "chart": {
                "bars": (2, self._bars),
                "tallest": (2, lambda drawing: (self._say("tallest"), drawing.tallest)),
                "shortest": (2, lambda drawing: (self._say("shortest"), drawing.shortest)),
                "bar_at": (1.5, self._bar_at),
                "exists": (1, self._bar_exists),
                "describe": (2, self._describe),
                "kind": (1, self._kind),
            },
        }

    def ask(self, drawing: Drawing, kind: str | None = None) -> Question | None:
        """Ask about an image.

        Args:
            drawing: The image.
            kind: What is asked; by default anything that fits.

        Returns:
            The question; None where that can't be asked of this image.
        """
        kinds = self._kinds[drawing.kind]
        kind = kind or self._chance.choices(list(kinds), [share for share, _ in kinds.values()])[0]
        made = kinds[kind][1](drawing)
        if made is None:
            return None
        text = carelessly(self._chance, made[0]) if self._careless else made[0]
        return Question(text, made[1], kind)

    def _say(self, kind, **words):
        return phrase(self._chance, kind, unheard=self._unheard, **words)

    def _one(self, things):
        return self._chance.choice(things) if things else None

    def _color(self, drawing):
        if len(drawing.things) == 1 and self._chance.random() < 0.4:
            return self._say("color_of_all"), drawing.things[0].color
        thing = self._one(_only(drawing.things, "shape"))
        return thing and (self._say("color", shape=thing.shape), thing.color)

    def _shape(self, drawing):
        if len(drawing.things) == 1 and self._chance.random() < 0.4:
            return self._say("shape_of_all"), drawing.things[0].shape
        thing = self._one(_only(drawing.things, "color"))
        return thing and (self._say("shape", color=thing.color), thing.shape)

    def _where(self, drawing):
        kinds = Counter((thing.color, thing.shape) for thing in drawing.things)
        named = [(thing, thing.shape) for thing in _only(drawing.things, "shape")]
        named += [
            (one, f"{one.color} {one.shape}") for one in drawing.things if kinds[one.color, one.shape] == 1
        ]
        found = self._one([(thing, name) for thing, name in named if thing.place])
        return found and (self._say("where", thing=found[1]), found[0].place)

    def _at(self, drawing):
        places = Counter(thing.place for thing in drawing.things)
        if None in places:
            return None
        if self._chance.random() < 0.15:
            place = self._chance.choice([place for place in PLACES if place not in places])
            return self._say("at", place=place), "Nothing"
        thing = self._one([thing for thing in drawing.things if places[thing.place] == 1])
        return thing and (self._say("at", place=thing.place), f"{_a(thing)}".capitalize())

    def _count_all(self, drawing):
        return self._say("count_all"), str(len(drawing.things))

    def _count_shape(self, drawing):
        shape = self._near(drawing, "shape", SHAPES)
        count = sum(thing.shape == shape for thing in drawing.things)
        return self._say("count", things=_plural(shape)), str(count)

    def _count_color(self, drawing):
        color = self._near(drawing, "color", tuple(COLORS))
        count = sum(thing.color == color for thing in drawing.things)
        noun = self._chance.choice(("objects", "shapes", "things"))
        return self._say("count", things=f"{color} {noun}"), str(count)

    def _count_both(self, drawing):
        color, shape = self._near(drawing, "color", tuple(COLORS)), self._near(drawing, "shape", SHAPES)
        count = sum((thing.color, thing.shape) == (color, shape) for thing in drawing.things)
        return self._say("count", things=f"{color} {_plural(shape)}"), str(count)

    def _near(self, drawing, what, all_of_them):
        """Choose what mostly is there, and sometimes is not."""
        if self._chance.random() < 0.75:
            return getattr(self._chance.choice(drawing.things), what)
        return self._chance.choice(all_of_them)

    def _exists(self, drawing):
        there = self._chance.choice(drawing.things)
        color, shape = there.color, there.shape
        if (lot := self._chance.random()) < 0.3:
            color, shape = self._chance.choice(list(COLORS)), self._chance.choice(SHAPES)
        elif lot < 0.45:
            color = self._chance.choice(list(COLORS))
        elif lot < 0.6:
            shape = self._chance.choice(SHAPES)
        lot = self._chance.random()
        asked = {"color": None if lot < 0.2 else color, "shape": shape}
        found = any(asked["color"] in (None, one.color) and one.shape == shape for one in drawing.things)
        name = f"{asked['color']} {shape}" if asked["color"] else shape
        return self._say("exists", a_thing=_article(name)), "Yes" if found else "No"

    def _describe(self, drawing):
        return self._say("describe"), describe(drawing)

    def _kind(self, drawing):
        kinds = {"scene": "A drawing of shapes.", "sign": "A sign.", "chart": "A bar chart."}
        return self._say("kind"), kinds[drawing.kind]

    def _json(self, drawing):
        if len(drawing.things) == 1 and self._chance.random() < 0.5:
            thing = drawing.things[0]
            return self._say("json_of_one"), json.dumps({"shape": thing.shape, "color": thing.color})
        listed = [
            {"color": color, "shape": shape, "count": count} for (color, shape), count in _counted(drawing)
        ]
        return self._say("json"), json.dumps(listed)

    def _read(self, drawing):
        return self._say("read", noun=_noun(drawing)), drawing.text

    def _says(self, drawing):
        word = drawing.text
        if self._chance.random() < 0.5:
            other = number_text if word.isdigit() else random_letters
            word = self._chance.choice((other(self._chance), self._chance.choice(WORDS)))
        return self._say("says", word=word, noun=_noun(drawing)), "Yes" if word == drawing.text else "No"

    def _sign_color(self, drawing):
        return self._say("sign_color"), drawing.color

    def _json_of_sign(self, drawing):
        return self._say("json_of_sign"), json.dumps({"text": drawing.text, "color": drawing.color})

    def _bars(self, drawing):
        return self._say("bars"), str(len(drawing.things))

    def _bar_at(self, drawing):
        which = self._chance.choice(("first", "last", "leftmost", "rightmost", "second"))
        place = {"first": 0, "leftmost": 0, "second": 1}.get(which, -1)
        return self._say("bar_at", which=which), drawing.things[place].color

    def _bar_exists(self, drawing):
        color = self._near(drawing, "color", tuple(COLORS))
        found = any(bar.color == color for bar in drawing.things)
        return self._say("exists", a_thing=_article(f"{color} bar")), "Yes" if found else "No"


def describe(drawing: Drawing) -> str:
    """Tell in one sentence what an image shows."""
    if drawing.kind == "sign":
        return f"A {drawing.color} sign with the {_noun(drawing)} {drawing.text}."
    if drawing.kind == "chart":
        return f"A bar chart with {_joined([bar.color for bar in drawing.things])} bars."
    parts = [
        _article(f"{color} {shape}") if count == 1 else f"{NUMBERS[count]} {color} {_plural(shape)}"
        for (color, shape), count in _counted(drawing)
    ]
    text = f"{_joined(parts)} on a {drawing.ground} background."
    return text[0].upper() + text[1:]


def _counted(drawing: Drawing) -> list[tuple[tuple[str, str], int]]:
    return sorted(Counter((thing.color, thing.shape) for thing in drawing.things).items())


def _only(things: list[Thing], what: str) -> list[Thing]:
    """Those that share their shape, or their colour, with no other."""
    counts = Counter(getattr(thing, what) for thing in things)
    return [thing for thing in things if counts[getattr(thing, what)] == 1]


def _noun(drawing: Drawing) -> str:
    return "number" if drawing.text.isdigit() else "word"


def _a(thing: Thing) -> str:
    return _article(f"{thing.color} {thing.shape}")


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _plural(noun: str) -> str:
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
