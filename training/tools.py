"""Random tools, and requests that need them."""

import json
from dataclasses import dataclass
from random import Random
from typing import Any

from llama_vision.core.request import Tool
from training.canvas import Drawing
from training.words import KEYS, invented, name, number, small_talk, value

_VERBS = "get find search lookup fetch send create compute check list read open save set show book add delete convert".split()
_NOUNS = (
    "weather price stock time city user order email file item flight room score note report color shape map news rate "
    "forecast temperature web page table ticket train hotel list result number distance light song word"
).split()
_BETWEEN = ("current", "new", "daily", "local", "best", "total", "last")
_WHOLE = frozenset({"amount", "number", "count", "id", "age", "year", "limit", "size", "price"})
_ABOUT = ("The {}", "the {} to use", "{}", "Which {}", "The {}.", "A {}, such as one that the user says")
_SUMS = {
    "add": ("+", "plus", "Add {a} and {b}.", "What is {a} plus {b}?", "What is {a} + {b}?"),
    "subtract": ("-", "minus", "Subtract {b} from {a}.", "What is {a} minus {b}?", "What is {a} - {b}?"),
    "multiply": ("*", "times", "Multiply {a} by {b}.", "What is {a} times {b}?", "What is {a} * {b}?"),
    "divide": ("/", "by", "Divide {a} by {b}.", "What is {a} divided by {b}?", "What is {a} / {b}?"),
}


@dataclass(frozen=True, slots=True)
class Errand:
    """Something to be done with a tool.

    Attributes:
        tool: The tool.
        asked: What the user says.
        arguments: What the call has to hold, in the order of the schema.
    """

    tool: Tool
    asked: str
    arguments: dict[str, Any]

    @property
    def call(self) -> str:
        """The call, as the model has to write it."""
        return json.dumps({"name": self.tool.name, "parameters": self.arguments}, ensure_ascii=False)


def errand(chance: Random) -> Errand:
    """Invent a tool and a wish that needs it."""
    return errand_with(chance, _sum(chance) if chance.random() < 0.12 else some_tool(chance))


def errand_with(chance: Random, tool: Tool) -> Errand:
    """Invent a wish that needs this tool."""
    if set(tool.parameters["properties"]) == {"a", "b"}:
        a, b = number(chance), number(chance)
        return Errand(tool, chance.choice(_SUMS[tool.name][2:]).format(a=a, b=b), {"a": a, "b": b})
    whole = tool.parameters["properties"]
    arguments = {
        key: number(chance) if kind["type"] == "integer" else _words(chance) for key, kind in whole.items()
    }
    hint = (
        chance.choice((" Use the tool.", " Use a tool.", " Please use the tool."))
        if chance.random() < 0.06
        else ""
    )
    return Errand(tool, _wish(chance, tool, arguments) + hint, arguments)


def some_tool(chance: Random, parameters: list[str] | None = None) -> Tool:
    """Invent a tool, described as people and as frameworks describe them."""
    noun = chance.choice(_NOUNS) if chance.random() < 0.7 else invented(chance)
    verb = chance.choice(_VERBS)
    between = f"{chance.choice(_BETWEEN)}_" if chance.random() < 0.12 else ""
    tool_name = (
        f"{verb}_{between}{noun}" if chance.random() < 0.92 else chance.choice((verb, noun, invented(chance)))
    )
    keys = parameters or _keys(chance)
    about = (
        f"{verb.capitalize()} the {between.replace('_', ' ')}{noun}"
        if "_" in tool_name
        else f"{tool_name.capitalize()} something"
    )
    if chance.random() < 0.3:
        about += chance.choice((".", f" of a {keys[0]}.", f" for a {keys[0]}", " that the user asks for."))
    if chance.random() < 0.12:
        about = f"{tool_name}({', '.join(f'{key}: {_type(key)[:3]}' for key in keys)}) -> str\n{about}"
    return Tool(tool_name, about, _schema(chance, keys))


def wanted(chance: Random, *, most: int) -> tuple[list[Tool], Errand]:
    """Draw some tools and a wish that one of them fits.

    Args:
        chance: Draws the lots.
        most: How many tools there may be.

    Returns:
        The tools in any order, and the wish.
    """
    one = errand(chance)
    return _among_others(chance, one, most), one


def image_errand(chance: Random, drawing: Drawing) -> Errand | None:
    """Invent a request whose arguments are in an image; None where this one has none."""
    facts: dict[str, Any]
    if drawing.kind == "sign":
        facts = {chance.choice(("text", "word")): drawing.text, "color": drawing.color}
    elif drawing.kind == "scene" and len(drawing.things) == 1:
        facts = {"shape": drawing.things[0].shape, "color": drawing.things[0].color}
    elif drawing.kind == "scene":
        facts = {"count": len(drawing.things)}
    else:
        return None
    keys = list(facts)
    chance.shuffle(keys)
    keys = keys[: chance.randint(1, len(keys))]
    tool = some_tool(chance, keys)
    listed = " and ".join(f"the {key}" for key in keys)
    act = tool.name.replace("_", " ")
    asked = chance.choice(
        (
            f"{act.capitalize()} for what you see.",
            f"Please {act} with {listed} in the picture.",
            f"Look at the picture and call {tool.name}.",
            f"Call {tool.name} with {listed}.",
            f"{act.capitalize()} with {listed} of the picture.",
        )
    )
    return Errand(tool, asked, {key: facts[key] for key in keys})


def answered(chance: Random) -> tuple[str, str]:
    """Draw what a tool returns, and what is to be said of it."""
    key = chance.choice(
        ("result", "temperature", "price", "status", "answer", "value", "weather", "name", "time")
    )
    found = value(chance)
    if chance.random() < 0.3:
        return str(found), f"The result is {found}."
    return json.dumps({key: found}, ensure_ascii=False), f"The {key} is {found}."


def idle(chance: Random) -> tuple[list[Tool], str, str]:
    """Draw tools, and something that needs none of them."""
    asked, answer = small_talk(chance)
    return [some_tool(chance) for _ in range(chance.randint(1, 2))], asked, answer


def chain(chance: Random) -> tuple[list[Tool], str, list[Errand], tuple[str, str], str]:
    """Draw two wishes of which the second takes what the first one's tool returns.

    Returns:
        The tools, what the user says, both calls, what the tools return, and the last answer.
    """
    first = errand(chance)
    found = number(chance) if chance.random() < 0.6 else name(chance)
    keys = [key for key in KEYS if (key in _WHOLE) == isinstance(found, int)]
    while True:
        tool = some_tool(chance, [chance.choice(keys)])
        if _differ(tool, first.tool):
            break
    key = chance.choice(("temperature", "result", "value", "answer"))
    act = tool.name.replace("_", " ")
    asked = f"{first.asked.rstrip('.?')}{chance.choice((', then ', ' and then '))}{act}{chance.choice((' for the ', ' with the '))}{key}."
    second = Errand(tool, asked, {next(iter(tool.parameters["properties"])): found})
    last, told = answered(chance)
    tools = [first.tool, tool]
    chance.shuffle(tools)
    return tools, asked, [first, second], (json.dumps({key: found}, ensure_ascii=False), last), told


def _among_others(chance, one, most):
    tools = [one.tool]
    for _ in range(chance.randint(1, most) - 1):
        other = _sum(chance) if chance.random() < 0.12 else some_tool(chance)
        if all(_differ(other, tool) for tool in tools):
            tools.append(other)
    chance.shuffle(tools)
    return tools


def _differ(one, other):
    """Tell whether a wish can tell the two apart."""
    return not set(one.name.split("_")[1:] or [one.name]) & set(other.name.split("_")[1:] or [other.name])


def _sum(chance):
    doing = chance.choice(list(_SUMS))
    about = chance.choice(
        (
            f"{doing.capitalize()} two numbers",
            f"{doing.capitalize()} two numbers.",
            f"{doing.capitalize()} a and b.",
        )
    )
    return Tool(doing, about, _schema(chance, ["a", "b"], kind="integer"))


def _keys(chance):
    count = chance.choices((1, 2, 3), (6, 4, 1))[0]
    keys = chance.sample(KEYS, count)
    return [key if chance.random() < 0.7 else invented(chance) for key in keys]


def _type(key):
    return "integer" if key in _WHOLE else "string"


def _schema(chance, keys, kind=None):
    """Write a schema as people, pydantic and LlamaIndex do."""
    titled, told, last = chance.random() < 0.35, chance.random() < 0.25, chance.random() < 0.4
    properties: dict[str, Any] = {}
    for key in keys:
        properties[key] = {"type": kind or _type(key)}
        if titled:
            properties[key] = {"title": key.capitalize(), **properties[key]}
        if told:
            properties[key]["description"] = chance.choice(_ABOUT).format(key)
    if last:
        return {"properties": properties, "required": list(keys), "type": "object"}
    return {"type": "object", "properties": properties, "required": list(keys)}


def _words(chance):
    while True:
        found = value(chance)
        if isinstance(found, str):
            return found


def _wish(chance, tool, arguments):
    act = tool.name.replace("_", " ")
    verb, _, noun = act.partition(" ")
    noun = noun or verb
    values = " and ".join(str(one) for one in arguments.values())
    written = f"{tool.name}({', '.join(str(one) for one in arguments.values())})"
    pairs = [f"{key} {one}" for key, one in arguments.items()]
    return chance.choice(
        (
            f"{act.capitalize()} for {values}.",
            f"{act.capitalize()} {values}.",
            f"Please {act} with {' and '.join(pairs)}.",
            f"What is the {noun} for {values}?",
            f"What is the {noun} in {values}?",
            f"What's the {noun} of {values}?",
            f"Tell me the {noun} for {values}.",
            f"I need the {noun} for {values}.",
            f"Can you {act} for {values}?",
            f"Can you {verb} the {noun} for {values}?",
            f"How is the {noun} in {values}?",
            f"{verb.capitalize()} the {noun} of {values}, please.",
            f"Call {written}.",
            f"What is {written}?",
            f"What is the value of {written}? Use the tool.",
            f"What does {written} give?",
            f"Could you please {act} for {values}?",
            f"Show me the {noun} for {values}.",
            f"I want to {act} for {values}.",
            f"I would like to know the {noun} of {values}.",
            f"{noun.capitalize()} for {values}?",
            f"{act.capitalize()} where {' and '.join(f'{key} is {one}' for key, one in arguments.items())}.",
            f"{act.capitalize()} with {', '.join(f'{key}={one}' for key, one in arguments.items())}",
            f"Call {tool.name} with {', '.join(f'{key}={one}' for key, one in arguments.items())}.",
            f"Use {tool.name}: {', '.join(pairs)}.",
        )
    )
