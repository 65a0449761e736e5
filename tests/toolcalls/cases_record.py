"""What one example of a tool call in a text says, and the tools that examples offer."""

from dataclasses import dataclass
from typing import Any

from llama_vision.core.request import Tool

META_31 = "llama-models models/llama3_1/prompt_format.md"
META_32 = "llama-models models/llama3_2/text_prompt_format.md"
META_33 = "llama-models models/llama3_3/prompt_format.md"
AFTER_PROSE = "peers disagree (1): a call after prose; vLLM contradicts itself between streaming and not"
LEFTOVER = "peers disagree (2): text beside a call; vLLM drops it, SGLang, Unsloth and llama.cpp keep it"
NOT_OFFERED = (
    "peers disagree (3): a name that was not offered; vLLM gives the call, SGLang drops call and text"
)
NO_ARGUMENTS = "peers disagree (4): no arguments, or null; SGLang makes {} of null, vLLM passes it on"
BOTH_KEYS = (
    "peers disagree (5): parameters and arguments; vLLM takes one, SGLang the other, both fail in streams"
)
ENCODED_TWICE = (
    "peers disagree (6): arguments as a JSON string; Ollama and Unsloth decode, vLLM and SGLang do not"
)
PYTHON_IN_JSON = "peers disagree (7): Python literals in JSON; SGLang reads them, others do not"
FENCED = "peers disagree (8): code fences; vLLM (not streaming) and llama.cpp read through them"
PYTHONIC = "peers disagree (9): what a pythonic list may hold, and what may stand around it"
GROQ = "https://console.groq.com/docs/tool-use, failed_generation of Llama 3: the bracket is missing or late"
FUNCTION_TAG = "peers disagree (10): the end of <function=...>; Meta's lazy pattern breaks on nested braces"
CODE_WITHOUT_TOOL = "peers disagree (11): code without an offered code tool; Meta makes a call of it"
OBJECT_FIRST = "peers disagree (12): an object that is no call, then a call"


@dataclass(frozen=True, slots=True)
class Case:
    """One text that a model wrote.

    Attributes:
        id: A name for it.
        text: What the model wrote, whole.
        source: Where the case comes from: Meta's document, an issue, a disagreement, or a rule of our own.
        content: The text that is left beside the calls.
        calls: Name and arguments of every call, in order.
        tools: Which of `TOOLS` are offered.
        ids: Ids that the text itself gives, by call; None where one has to be made.
    """

    id: str
    text: str
    source: str
    content: str | None = None
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    tools: str = "usual"
    ids: tuple[str | None, ...] = ()


def refuted(name: str, text: str, source: str, tools: str = "usual") -> Case:
    """Make a case in which nothing is a call, and all of the text is the answer."""
    return Case(name, text, source, content=text, tools=tools)


def tool(name: str, **properties: Any) -> Tool:
    """Define a tool by its properties' schemas; a bare word is a type."""
    schemas = {key: {"type": value} if isinstance(value, str) else value for key, value in properties.items()}
    return Tool(name, f"The tool {name}.", {"type": "object", "properties": schemas})


GET_WEATHER = tool(
    "get_weather", city="string", unit={"type": "string", "enum": ["celsius", "fahrenheit"]}, days="integer"
)
SAY_HELLO = tool("say_hello", to="string")
SAY_HELLO_WORLD = tool("say_hello_world", loudly="boolean")
USUAL = (
    GET_WEATHER,
    tool("add", a="number", b="number"),
    tool("get_time"),
    tool("note", text="string"),
    SAY_HELLO,
    SAY_HELLO_WORLD,
    tool("brave_search", query="string"),
    tool("wolfram_alpha", query="string"),
    tool("trending_songs", n="integer", genre="string"),
    tool("天気", city="string"),
    tool("look-up.v2", key="string"),
    tool("set_lights", on="boolean", colour={"type": ["string", "null"]}, at={"type": "array"}),
    tool(
        "book_table",
        restaurant={
            "type": "object",
            "properties": {"name": {"type": "string"}, "address": {"type": "object"}},
        },
        guests={"type": "array", "items": {"type": "object"}},
    ),
)
TOOLS = {
    "usual": USUAL,
    "none": (),
    "weather": (GET_WEATHER,),
    "greetings": (SAY_HELLO, SAY_HELLO_WORLD),
    "code": (*USUAL, tool("code_interpreter", code="string")),
    "python": (GET_WEATHER, tool("python", code="string", timeout="integer")),
    "ipython": (tool("ipython", code="string"),),
    "emoji": (tool("\U0001f326"),),
    "source": (tool("code_interpreter", source="string"),),
}
"""What can be offered, by the name of the set."""

PARIS = '{"name": "get_weather", "parameters": {"city": "Paris"}}'
ROME = '{"name": "get_weather", "parameters": {"city": "Rome"}}'
TIME = '{"name": "get_time", "parameters": {}}'
UNKNOWN = '{"name": "launch_rocket", "parameters": {"city": "Paris"}}'
BINGO = '{"name": "Bingo", "age": 30}'
IN_PARIS = ("get_weather", {"city": "Paris"})
IN_ROME = ("get_weather", {"city": "Rome"})
THE_TIME = ("get_time", dict[str, Any]())
