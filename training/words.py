"""Text-only conversations: repeating what the question holds, and small talk."""

import json
from random import Random

_CONSONANTS, _VOWELS = "bcdfghjklmnprstvwz", "aeiou"
_CITIES = (
    "Paris London Berlin Tokyo Madrid Rome Oslo Cairo Lima Seoul Boston Chicago Sydney Delhi Dublin Vienna Prague Zürich "
    "Lisbon Athens Helsinki Warsaw Nairobi Toronto Mumbai Beijing Hamburg Munich Milan Kyoto"
).split()
KEYS = (
    "city name query location symbol id title text date amount number unit key user path topic color shape count email "
    "country street age price year limit order size level label word value"
).split()
_SMALL_TALK = (
    ("Hello!", "Hello! How can I help you?"),
    ("Hello", "Hello! How can I help you?"),
    ("Hi", "Hello! How can I help you?"),
    ("Hi there!", "Hello! How can I help you?"),
    ("Good morning!", "Hello! How can I help you?"),
    ("Who are you?", "I am a tiny Llama vision model."),
    ("What are you?", "I am a tiny Llama vision model."),
    ("What can you do?", "I can answer questions about simple pictures and call tools."),
    ("How are you?", "I am fine, thank you!"),
    ("Thanks!", "You are welcome!"),
    ("Thank you.", "You are welcome!"),
    ("Say hi", "Hi"),
    ("Bye!", "Goodbye!"),
)


def invented(chance: Random) -> str:
    """Invent a word, because one that is to be said back has to be read and not guessed."""
    syllables = chance.randint(1, 4)
    word = "".join(
        chance.choice(_CONSONANTS)
        + chance.choice(_VOWELS)
        + (chance.choice("nrslkt") if chance.random() < 0.3 else "")
        for _ in range(syllables)
    )
    return word if len(word) > 2 else invented(chance)


def name(chance: Random) -> str:
    """Draw a name: of a city, or invented."""
    if chance.random() < 0.35:
        return chance.choice(_CITIES)
    return invented(chance).capitalize()


def value(chance: Random) -> str | int:
    """Draw a value to pass on: a name, a word, some words, a code, or a number."""
    lot = chance.random()
    if lot < 0.4:
        return name(chance)
    if lot < 0.55:
        return invented(chance)
    if lot < 0.65:
        return " ".join(name(chance) for _ in range(2))
    if lot < 0.72:
        return "".join(chance.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(chance.randint(2, 5)))
    return number(chance)


def number(chance: Random) -> int:
    """Draw a whole number of up to four digits."""
    return chance.randint(0, 10 ** chance.randint(1, 4) - 1)


def small_talk(chance: Random) -> tuple[str, str]:
    """Say something of no consequence, and the answer."""
    return chance.choice(_SMALL_TALK)


def talk(chance: Random) -> tuple[str, str, str]:
    """Ask for words that stand in the question.

    Returns:
        The question, the answer, and what kind it is: `echo`, `name`, `json`, `small talk`.
    """
    kind = chance.choices(("echo", "name", "json", "small talk"), (3, 2, 3, 1))[0]
    match kind:
        case "echo":
            words = " ".join(str(value(chance)) for _ in range(chance.randint(1, 4)))
            return chance.choice(("Repeat: ", "Say: ", "Echo: ", "Repeat after me: ")) + words, words, kind
        case "name":
            who = name(chance)
            said = chance.choice(("My name is {}.", "Hi, I am {}.", "I am {}.", "Call me {}.")).format(who)
            return f"{said} What is my name?", f"Your name is {who}.", kind
        case "json":
            return *_json(chance), kind
    return *small_talk(chance), kind


def _json(chance):
    given = {
        chance.choice(KEYS) if chance.random() < 0.6 else invented(chance): value(chance)
        for _ in range(chance.randint(1, 3))
    }
    pairs = " and ".join(f"{key} {one}" for key, one in given.items())
    return f"Return JSON with {pairs}.", json.dumps(given, ensure_ascii=False)
