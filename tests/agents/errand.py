"""An errand that takes two tools, one after the other, and a model that writes its calls into the text."""

import json
import re
from dataclasses import dataclass, field

import pytest

from tests.emulator import ACCOUNT_ID, Received, completion

PROVIDERS = ("deepinfra", "openai-compatible", "aimlapi", "aigateway", "cloudflare")
IN_WORDS = frozenset({"aimlapi"})
"""Where tools, calls and results go into the words of the messages."""

QUESTION = "How warm is it in Zürich? I think in °F."
ANSWER = "It is 69.8 °F in Zürich."
CALLS = [("get_weather", {"city": "Zürich"}), ("to_fahrenheit", {"celsius": 21.0})]
RESULTS = ['{"celsius": 21.0}', '{"fahrenheit": 69.8}']
WORDS = "I look it up."


@dataclass
class Errand:
    """The tools, and what they were called with.

    Attributes:
        calls: Name and arguments of each, in order.
    """

    calls: list = field(default_factory=list)

    def get_weather(self, city: str) -> str:
        """Get the weather of a city.

        Args:
            city: Its name.
        """
        self.calls.append(("get_weather", {"city": city}))
        return json.dumps({"celsius": 21.0 if city == "Zürich" else 9.0})

    def to_fahrenheit(self, celsius: float) -> str:
        """Convert degrees Celsius to Fahrenheit.

        Args:
            celsius: Degrees.
        """
        self.calls.append(("to_fahrenheit", {"celsius": celsius}))
        return json.dumps({"fahrenheit": round(celsius * 9 / 5 + 32, 1)})

    @property
    def functions(self):
        return [self.get_weather, self.to_fahrenheit]


def as_json(name, arguments):
    """Write a call in the form that Meta documents."""
    return json.dumps({"name": name, "parameters": arguments}, ensure_ascii=False)


def in_python(arguments):
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


ENVELOPES = {
    "JSON": as_json,
    "JSON, and more": lambda name, arguments: json.dumps(
        {"type": "function", "arguments": json.dumps(arguments), "name": name}
    ),
    "OpenAI's JSON": lambda name, arguments: json.dumps(
        {"id": f"id_of_{name}", "type": "function", "function": {"name": name, "arguments": arguments}}
    ),
    "tag": lambda name, arguments: f"<|python_tag|>{as_json(name, arguments)}<|eom_id|>",
    "tag and method": lambda name, arguments: f"<|python_tag|>{name}.call({in_python(arguments)})",
    "function tag": lambda name, arguments: f"<function={name}>{json.dumps(arguments)}</function>",
    "Python": lambda name, arguments: f"[{name}({in_python(arguments)})]",
    "fence": lambda name, arguments: f"```json\n{as_json(name, arguments)}\n```",
    "fence after words": lambda name, arguments: f"{WORDS}\n\n```\n{as_json(name, arguments)}\n```\n",
    "after words": lambda name, arguments: f"{WORDS} {as_json(name, arguments)}",
}


NO_CALLS = {
    "cut off": ('{"name": "get_weather", "parameters": {"city": "Zür', "length"),
    "cut off, and nobody says so": ('{"name": "get_weather", "parameters": {"city": "Zür', "stop"),
    "without its last brace": ('{"name": "get_weather", "parameters": {"city": "Zürich"}', "length"),
    "no JSON": ('{"name": "get_weather", "parameters": {"city": Zürich}}', "stop"),
    "another tool": ('{"name": "get_time", "parameters": {"city": "Zürich"}}', "stop"),
    "in Python, cut off": ('<|python_tag|>get_weather.call(city="Zür', "length"),
}
"""What must not run, and why the reply ended."""


def in_turn(providers, cases, ways):
    """Go through all pairs of a provider and a case, each in one of the ways, such that they all come with each."""
    return [
        pytest.param(provider, case, ways[(row + column) % len(ways)])
        for row, provider in enumerate(providers)
        for column, case in enumerate(cases)
    ]


def model_that_writes(envelope):
    """Make the three replies of the errand, for an emulator.

    The second and the third are made of the number in the result that has arrived, so that a lost one leads to no answer.
    """
    write = ENVELOPES[envelope]
    return (
        completion(write("get_weather", {"city": "Zürich"})),
        lambda received: completion(write("to_fahrenheit", {"celsius": number_in(received, "celsius")})),
        lambda received: completion(f"It is {number_in(received, 'fahrenheit')} °F in Zürich."),
    )


def number_in(received, key):
    """Find the number that a result tells, the latest where there are several."""
    words = "\n".join(told(message) for message in received.body["messages"])
    return float(re.findall(rf'"{key}\W+([\d.]+)', words)[-1])


def told(message):
    """Give the words of a message."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "\n".join(block.get("text", "") for block in content)


def place(emulator, provider, **options):
    """Make the options that both adapters take, for a model at an emulator."""
    account = {"account_id": ACCOUNT_ID} if provider.startswith("cloudflare") else {}
    name = {"model": "meta-llama/Llama-3.2-11B-Vision-Instruct"} if provider == "openai-compatible" else {}
    return {
        "provider": provider,
        "api_key": emulator.api_key,
        "max_retries": 0,
        **account,
        **name,
        **options,
    }


def offered(received: Received, provider):
    """Name the tools that a request offers."""
    if provider in IN_WORDS:
        words = "\n".join(told(message) for message in received.body["messages"])
        return re.findall(r'"function": \{\s+"name": "(\w+)"', words)
    return [tool.get("function", tool)["name"] for tool in received.body["tools"]]


def check_what_was_sent(emulator, provider):
    """Look at the three requests of the errand: the tools, each call before its result, and the id that ties them."""
    for done, received in enumerate(emulator.requests):
        assert offered(received, provider) == ["get_weather", "to_fahrenheit"]
        asked, *turns = received.body["messages"]
        assert QUESTION in told(asked)
        assert len(turns) == 2 * done
        ids = [_tie(*turns[2 * nth : 2 * nth + 2], provider, CALLS[nth], RESULTS[nth]) for nth in range(done)]
        assert len(set(ids)) == done
    assert len(emulator.requests) == 3


def _tie(called, answered, provider, call, result):
    """Look at a call and its result as they are sent back; give the id, or the name where the wire has no ids."""
    name, arguments = call
    assert called["role"] == "assistant"
    if provider in IN_WORDS:
        assert told(called).endswith(as_json(name, arguments))
        assert answered == {"role": "user", "content": f"The call of {name} returned {json.dumps(result)}"}
        return name
    assert (answered["role"], answered["content"]) == ("tool", result)
    if provider == "cloudflare":  # whose native messages hold text alone
        assert told(called).endswith(as_json(name, arguments))
        return name
    (sent,) = called["tool_calls"]
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    assert sent == {"id": answered["tool_call_id"], "type": "function", "function": function}
    return sent["id"]
