"""Tool calls as models write them into their words, what they mean, and answers that only look like calls."""

import json

from tests.emulator import event_stream


def tool(name, description="", **properties):
    """Describe a tool whose arguments have these schemas."""
    parameters = {"type": "object", "properties": properties}
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
WEATHER = tool("get_weather", "Get the weather of a city", city=TEXT, days=NUMBER)
CLOCK = tool("get_time", "Tell the time")
CODE = tool("code_interpreter", "Run Python", code=TEXT)
OFFERED = [WEATHER, CLOCK]

ROME = ("get_weather", {"city": "Rome"})
PARIS = ("get_weather", {"city": "Paris", "days": 2})
TIME = ("get_time", {})
ROME_TEXT = '{"name": "get_weather", "parameters": {"city": "Rome"}}'
PARIS_TEXT = '{"name": "get_weather", "parameters": {"city": "Paris", "days": 2}}'
PROGRAM = 'for city in ("Rome", "Paris"):\n    print({"city": city})  # ü 日本'

LEAKED = {
    "parameters": (ROME_TEXT, [ROME]),
    "arguments": ('{"name": "get_weather", "arguments": {"city": "Paris", "days": 2}}', [PARIS]),
    "type function": ('{"type": "function", "name": "get_time", "parameters": {}}', [TIME]),
    "quotes and braces": (
        '{"name": "get_weather", "parameters": {"city": "a \\"} ] \\u00fc 日本 🦙"}}',
        [("get_weather", {"city": 'a "} ] ü 日本 🦙'})],
    ),
    "tag and JSON": (f"<|python_tag|>{ROME_TEXT}<|eom_id|>", [ROME]),
    "function tag": ('<function=get_weather>{"city": "Rome"}</function>', [ROME]),
    "pythonic": ("[get_weather(city='Paris', days=2), get_time()]", [PARIS, TIME]),
    "tag and pythonic": ('<|python_tag|>[get_weather(city="Rome")]', [ROME]),
    "a call of a method": ('<|python_tag|>get_weather.call(city="Rome")', [ROME]),
    "fenced": (f"```json\n{ROME_TEXT}\n```", [ROME]),
    "semicolon": (f"{ROME_TEXT}; {PARIS_TEXT}", [ROME, PARIS]),
    "the same twice": (f"{ROME_TEXT}\n{ROME_TEXT}", [ROME, ROME]),
    "list": (f"[{ROME_TEXT}, {PARIS_TEXT}]", [ROME, PARIS]),
    "code": (f"<|python_tag|>{PROGRAM}", [("code_interpreter", {"code": PROGRAM})]),
}
"""What is written, and the calls that it is."""

WORDS = {
    "an unoffered name": '{"name": "get_wether", "parameters": {"city": "Rome"}}',
    "a longer name": '{"name": "get_weather_now", "parameters": {"city": "Rome"}}',
    "a name and an age": '{"name": "Bingo", "age": 30}',
    "a program": 'Here:\n```c\nint main(void) {\n  int a[2] = {1, 2};\n  printf("{%d}", a[0]);\n}\n```\n',
    "a list": '[{"city": "Rome"}, {"city": "Paris"}] and [1, 2], [get_wether(city="Rome")]',
    "a call inside": '{"call": {"name": "get_weather", "parameters": {"city": "Rome"}}}',
    "no arguments": '{"name": "get_weather"}',
    "a tag before words": "<|python_tag|>print(1)",
    "about tags": "Write <function=name> or <|python_tag|>, `[f(x)]`, {, [ and ``` as you like.",
}
"""Answers that are no calls, each of which looks like one for a while."""


def letters(text, finish_reason="stop"):
    """Make a script that streams one letter at a time, in the provider's dialect."""

    def answer(received):
        if "/ai/run/" in received.path:
            pieces = [{"response": letter} for letter in text]
            end = {"response": "", "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
        else:
            pieces = [{"choices": [{"index": 0, "delta": {"content": letter}}]} for letter in text]
            end = {"choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason}]}
        return event_stream(*pieces, end, "[DONE]")

    return answer


def openai_calls(calls, ids):
    """Spell calls as OpenAI does, with the arguments read."""
    return [
        {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
        for call_id, (name, arguments) in zip(ids, calls, strict=True)
    ]


def with_read_arguments(specs):
    """Read the arguments of calls that are spelled as OpenAI does."""
    return [
        {
            **spec,
            "function": {**spec["function"], "arguments": json.loads(spec["function"]["arguments"] or "{}")},
        }
        for spec in specs
    ]
