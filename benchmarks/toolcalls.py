"""Cost of parsing tool calls in a model's text, beside code that knows where they are.

`make bench` runs it. All figures come from this one run, in interleaved rounds; each is the median of the rounds.
`python benchmarks/toolcalls.py --json` prints the figures for a program.
"""

import argparse
import json
import statistics
import time

from llama_vision.core.events import TextDelta
from llama_vision.core.reply import ReplyBuilder
from llama_vision.core.request import Tool
from llama_vision.toolcalls import ToolCallParser

ROUNDS, CHARACTERS, TOKEN = 9, 20_000, 4
GOALS = {"text": 1.0, "calls": 5.0}
"""Microseconds of processor time for a character."""

TOOLS = [Tool("get_weather", "", {}), Tool("note", "", {})]
ARGUMENTS = {
    "city": "Paris",
    "days": [1, 2, 3.5],
    "live": True,
    "text": "Bring an umbrella, and don't forget the map.",
}
AS_JSON = json.dumps(ARGUMENTS)
KEYWORDS = ", ".join(f"{key}={value!r}" for key, value in ARGUMENTS.items())
PROSE = "The weather in Paris is mild today (see [1] and {note}): 3 < 4, with `rain` in the evening. "
CALLS = {
    "JSON": f'{{"name": "get_weather", "parameters": {AS_JSON}}}',
    "JSON in a fence": f'```json\n{{"name": "get_weather", "arguments": {AS_JSON}}}\n```',
    "function tag": f"<function=get_weather>{AS_JSON}</function>",
    "Python list": f"[get_weather({KEYWORDS})]",
    "python tag": f"<|python_tag|>get_weather.call({KEYWORDS})<|eom_id|>",
}
TEXTS = {"text": PROSE * 3, **CALLS}


def parsed(text, size):
    """Parse a reply that comes in chunks of a size."""
    parser, reply = ToolCallParser(TOOLS), ReplyBuilder()
    for start in range(0, len(text), size):
        for delta in parser.feed(text[start : start + size]):
            reply.add(delta)
    for delta in parser.close():
        reply.add(delta)
    return reply


def added_up(text, size):
    """Accumulate a reply that comes in chunks of a size, as text."""
    reply = ReplyBuilder()
    for start in range(0, len(text), size):
        reply.add(TextDelta(text[start : start + size]))
    return reply


def baseline(name, text):
    """Give the work of code that knows what the text is."""
    if name == "text":
        return lambda: added_up(text, TOKEN)
    return lambda: json.loads(CALLS["JSON"])


def us_per_character(work, length):
    times = max(1, CHARACTERS // length)
    began = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - began) / times / length * 1e6


def results():
    for name, text in TEXTS.items():
        reply = parsed(text, TOKEN)
        calls = [(call.name, json.loads(call.arguments)) for call in reply.tool_calls]
        expected = (text, []) if name == "text" else ("", [("get_weather", ARGUMENTS)])
        if (reply.text, calls) != expected:
            raise SystemExit(f"{name} is not read as it should be")
    rounds = [
        {
            name: {
                "tokens": us_per_character(lambda t=text: parsed(t, TOKEN), len(text)),
                "whole": us_per_character(lambda t=text: parsed(t, len(t)), len(text)),
                "baseline": us_per_character(baseline(name, text), len(text)),
            }
            for name, text in TEXTS.items()
        }
        for _ in range(ROUNDS)
    ]
    return {
        name: {figure: statistics.median(found[name][figure] for found in rounds) for figure in figures}
        for name, figures in rounds[0].items()
    }


def show(found):
    title = "us of processor time per character"
    print(f"{title:<38}{f'chunks of {TOKEN}':>14}{'whole':>10}{'baseline':>12}")
    for name, figures in found.items():
        goal = GOALS["text" if name == "text" else "calls"]
        verdict = "" if max(figures["tokens"], figures["whole"]) < goal else "   MISSED"
        print(
            f"{name:<38}{figures['tokens']:>14.2f}{figures['whole']:>10.2f}{figures['baseline']:>12.2f}"
            f"   goal {goal:g}{verdict}"
        )
    print("baseline: of text, accumulating the same chunks; of calls, json.loads of the same call as JSON")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    options = parser.parse_args()
    found = results()
    if options.json:
        print(json.dumps(found))
    else:
        show(found)


if __name__ == "__main__":
    main()
