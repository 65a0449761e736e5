"""Texts that look like calls and are none, and calls that were cut off: all of it stays text."""

from tests.toolcalls.cases_record import (
    BINGO,
    BOTH_KEYS,
    ENCODED_TWICE,
    META_32,
    NO_ARGUMENTS,
    NOT_OFFERED,
    PARIS,
    TIME,
    UNKNOWN,
    Case,
    refuted,
)

PROGRAM = "https://github.com/ggml-org/llama.cpp/pull/20806"
PERSON = "https://github.com/ggml-org/llama.cpp/issues/16710"
NOT_PROMOTED = "rules: nothing inside a refuted structure is promoted"
INVALID = "rules: invalid JSON is text"
DEFINITION = "rules: a definition read back is no call"
CUT = "rules: a cut off call is text, whole"

ANSWERS = (
    refuted("plain", "The weather in Paris is fine.", META_32),
    refuted("plain-with-space-around", "\n  Fine.  \n", "rules: text is given unchanged"),
    refuted("plain-far-scripts", "晴れです ☀️ — ok", "rules: text is given unchanged"),
    Case("nothing", "", "rules: content is None where nothing is left"),
    refuted("person", BINGO, PERSON),
    refuted("person-by-an-offered-name", '{"name": "get_time", "age": 30}', PERSON),
    refuted("person-in-prose", f"The dog: {BINGO}, that's all", PERSON),
    refuted("json-answer", '{"answer": 42, "why": ["a", {"b": null}]}', "rules: first key"),
    refuted("json-answer-with-space", '\n { "answer": 42 }\n', "rules: first key"),
    refuted("json-answer-that-begins-alike", '{"names": ["a"], "parameters": {}}', "rules: first key"),
    refuted("json-list-of-people", f'[{BINGO}, {{"name": "Bello", "age": 3}}]', PERSON),
    refuted("json-list-of-numbers", "[1, 2, 3]", "rules: [ and anything else is text"),
    refuted("json-list-of-strings", '["get_time", "add"]', "rules: [ and anything else is text"),
    refuted("empty-object", "{}", "rules: { and anything else is text"),
    refuted("empty-brackets-in-prose", "An empty list [] or dict {} or both [{}].", "rules: [ and {"),
    refuted(
        "c-program",
        '#include <stdio.h>\nint main(void) {\n    char *s[] = {"a", "b"};\n    int n[] = {1, 2};\n'
        '    if (n[0] < 2) { printf("{%s}", s[n[0]]); }\n    return 0;\n}\n',
        PROGRAM,
    ),
    refuted("c-program-of-names", 'char *f[] = {"name", "type", "get_time"};', PROGRAM),
    refuted("brace-at-the-end", "Open with {", PROGRAM),
    refuted("bracket-at-the-end", "Open with [", PROGRAM),
    refuted("css", "a { color: red; }\nb[href] { margin: 0 }", PROGRAM),
    refuted("latex", r"\frac{a}{b} and \sqrt[3]{x} in \{1, 2\}", PROGRAM),
    refuted("template", "Hello {{ name }} and {% if x %}{name}{% endif %}", PROGRAM),
    refuted(
        "markdown-link", "See [get_time](https://example.com/get_time) and [1].", "rules: [ + identifier + ("
    ),
    refuted("markdown-image", '![get_weather](a.png "add")', "rules: [ + identifier + ("),
    refuted("markdown-list", "- [ ] get_time()\n- [x] add(a=1)\n* {a}\n1. [b]", "rules: [ + identifier + ("),
    refuted("markdown-table", "| a | `[b]` |\n|---|---|\n| {1} | <2> |", "rules: text is given unchanged"),
    refuted("html", '<div class="f"><function>x</function><s></s></div>', "rules: <function=name>"),
    refuted("comparison", "1 < 2 and <3 and a<|b", "rules: text is given unchanged"),
    refuted("python-list-comprehension", "[f(x) for x in range(3)]", "rules: only offered names"),
    refuted("python-index", "a[0] = b[get_time] + c['x']", "rules: [ + identifier + ("),
    refuted("javascript-object", "const a = {name: 'get_time', parameters: {}};", "rules: keys are quoted"),
    refuted(
        "talk-of-the-format", 'Write {"name": ..., "parameters": ...} to call it.', "rules: the name is text"
    ),
    refuted(
        "tool-definition",
        '{"name": "get_time", "description": "The time", "parameters": {"type": "object"}}',
        DEFINITION,
    ),
    refuted(
        "tool-definition-as-offered",
        '{"type": "function", "function": {"name": "get_weather", "description": "The weather", '
        '"parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}',
        DEFINITION,
    ),
    refuted(
        "schema", '{"type": "object", "properties": {"name": {"type": "string"}}}', "rules: another type"
    ),
)

ALMOST = (
    refuted("unoffered", UNKNOWN, NOT_OFFERED),
    refuted(
        "unoffered-type-function",
        '{"type": "function", "name": "launch_rocket", "parameters": {}}',
        NOT_OFFERED,
    ),
    refuted("unoffered-arguments-first", '{"parameters": {}, "name": "launch_rocket"}', NOT_OFFERED),
    refuted("unoffered-prefix", '{"name": "say_hell", "parameters": {}}', "rules: the exact name"),
    refuted("unoffered-longer", '{"name": "say_hello_world_2", "parameters": {}}', "rules: the exact name"),
    refuted("unoffered-other-case", '{"name": "Get_Time", "parameters": {}}', "rules: the exact name"),
    refuted("unoffered-space", '{"name": " get_time", "parameters": {}}', "rules: the exact name"),
    refuted("unoffered-function-as-name", '{"function": "launch_rocket", "parameters": {}}', NOT_OFFERED),
    refuted("name-empty", '{"name": "", "parameters": {}}', "rules: an offered name"),
    refuted("name-null", '{"name": null, "parameters": {}}', "rules: an offered name"),
    refuted("name-list", '{"name": ["get_time"], "parameters": {}}', "rules: an offered name"),
    refuted("no-name", '{"parameters": {"city": "Paris"}}', "rules: an offered name"),
    refuted("no-arguments-key", '{"name": "get_time"}', NO_ARGUMENTS),
    refuted("no-arguments-key-but-type", '{"type": "function", "name": "get_time"}', NO_ARGUMENTS),
    refuted("arguments-nul", '{"name": "get_time", "arguments": nul}', NO_ARGUMENTS),
    refuted("arguments-list", '{"name": "add", "arguments": [1, 2]}', "rules: an arguments object"),
    refuted("arguments-number", '{"name": "add", "arguments": 3}', "rules: an arguments object"),
    refuted("arguments-word", '{"name": "add", "arguments": true}', "rules: an arguments object"),
    refuted("arguments-prose", '{"name": "get_weather", "arguments": "Paris"}', ENCODED_TWICE),
    refuted("arguments-empty-string", '{"name": "get_time", "arguments": ""}', ENCODED_TWICE),
    refuted("arguments-encoded-list", '{"name": "add", "arguments": "[1, 2]"}', ENCODED_TWICE),
    refuted("arguments-encoded-half", r'{"name": "add", "arguments": "{\"a\": 1"}', ENCODED_TWICE),
    refuted("both-keys", '{"name": "add", "parameters": {"a": 1}, "arguments": {"a": 2}}', BOTH_KEYS),
    refuted("both-keys-turned", '{"name": "add", "arguments": {"a": 1}, "parameters": {"a": 1}}', BOTH_KEYS),
    refuted(
        "both-keys-before-the-name", '{"arguments": {}, "parameters": {}, "name": "get_time"}', BOTH_KEYS
    ),
    refuted("one-key-twice", '{"name": "get_time", "parameters": {}, "parameters": {}}', BOTH_KEYS),
    refuted(
        "other-type", '{"type": "tool", "name": "get_time", "parameters": {}}', "rules: another type is text"
    ),
    refuted(
        "first-key-unknown", '{"thought": "hm", "name": "get_time", "parameters": {}}', "rules: first key"
    ),
    refuted("wrapped", f'{{"tool_call": {PARIS}}}', NOT_PROMOTED),
    refuted("wrapped-in-a-list", f'{{"tool_calls": [{PARIS}, {TIME}]}}', NOT_PROMOTED),
    refuted(
        "call-in-unoffered-arguments", f'{{"name": "launch_rocket", "parameters": {PARIS}}}', NOT_PROMOTED
    ),
    refuted("call-in-a-person", f'{{"name": "Bingo", "first": {TIME}}}', NOT_PROMOTED),
    refuted("call-in-other-envelopes", f'{{"x": "<function=get_time>", "y": [{TIME}]}}', NOT_PROMOTED),
)

BROKEN = (
    refuted("trailing-comma", '{"name": "add", "parameters": {"a": 1, "b": 2,}}', INVALID),
    refuted("trailing-comma-outside", '{"name": "add", "parameters": {"a": 1, "b": 2},}', INVALID),
    refuted("trailing-comma-in-list", '{"name": "set_lights", "parameters": {"at": [1, 2,]}}', INVALID),
    refuted("comment", '{"name": "add", "parameters": {"a": 1 /* one */}}', INVALID),
    refuted("line-comment", '{"name": "add", // adds\n "parameters": {"a": 1}}', INVALID),
    refuted("missing-colon", '{"name": "add", "parameters": {"a" 1}}', INVALID),
    refuted("missing-value", '{"name": "add", "parameters": {"a": }}', INVALID),
    refuted("missing-comma", '{"name": "add", "parameters": {"a": 1 "b": 2}}', INVALID),
    refuted("missing-comma-outside", '{"name": "add" "parameters": {"a": 1}}', INVALID),
    refuted("bare-word", '{"name": "get_weather", "parameters": {"city": Paris}}', INVALID),
    refuted("bare-key", '{"name": "get_weather", "parameters": {city: "Paris"}}', INVALID),
    refuted("number-as-key", '{"name": "add", "parameters": {1: 2}}', INVALID),
    refuted("wrong-bracket", '{"name": "set_lights", "parameters": {"at": [1, 2}}', INVALID),
    refuted("bad-escape", r'{"name": "note", "parameters": {"text": "a\dc"}}', INVALID),
    refuted("bad-unicode-escape", r'{"name": "note", "parameters": {"text": "\u12g4"}}', INVALID),
    refuted("broken-word", '{"name": "set_lights", "parameters": {"on": tru}}', INVALID),
    refuted("two-points", '{"name": "add", "parameters": {"a": 1.2.3}}', INVALID),
    refuted("minus-alone", '{"name": "add", "parameters": {"a": -}}', INVALID),
)

ENDS = (
    ("cut-before-the-name", '{"name"'),
    ("cut-in-the-name", '{"name": "get_wea'),
    ("cut-before-arguments", '{"type": "function", "name": "get_weather", "parameters": '),
    ("cut-after-the-opening-brace", '{"name": "get_weather", "parameters": {'),
    ("cut-in-a-string", '{"name": "get_weather", "parameters": {"city": "Par'),
    ("cut-in-an-escape", '{"name": "note", "parameters": {"text": "a\\'),
    ("cut-in-a-unicode-escape", '{"name": "note", "parameters": {"text": "a\\u00'),
    ("cut-in-a-number", '{"name": "add", "parameters": {"a": 12'),
    ("cut-before-the-last-brace", '{"name": "get_weather", "parameters": {"city": "Paris"}'),
    ("cut-before-the-last-brace-with-space", '{"name": "get_weather", "parameters": {"city": "Paris"} \n'),
    ("cut-of-empty-arguments", '{"name": "get_time", "parameters": {}'),
    ("cut-with-arguments-first", '{"parameters": {"city": "Paris"}, "name": "get_weather"'),
    ("cut-in-encoded-arguments", r'{"name": "get_weather", "arguments": "{\"city\": \"Paris\"}'),
    ("cut-in-a-json-list", '[{"name": "get_weather", "parameters": {"city": "Par'),
    ("cut-after-the-tag", '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Par'),
    ("cut-in-a-fence", '```json\n{"name": "get_weather", "parameters": {"city": "Par'),
    ("cut-after-prose", 'Sure. {"name": "get_weather", "parameters": {"city": "Par'),
    ("cut-in-python-quotes", "{'name': 'get_weather', 'parameters': {'city': 'Par"),
    ("cut-function", '<function=get_weather>{"city": "Par'),
    ("cut-function-name", "<function=get_wea"),
    ("cut-function-before-the-object", "<function=get_weather>"),
    ("cut-pythonic-name", "[get_wea"),
    ("cut-pythonic-string", "[get_weather(city='Par"),
    ("cut-pythonic-before-the-parenthesis", "[get_weather(city='Paris'"),
    ("cut-pythonic-before-the-bracket", "[get_weather(city='Paris')"),
    ("cut-pythonic-empty", "[get_time("),
    ("cut-dot-call", '<|python_tag|>brave_search.call(query="gold'),
    ("cut-dot-call-before-the-parenthesis", '<|python_tag|>brave_search.call(query="gold"'),
    ("cut-dot-call-name", "<|python_tag|>brave_sea"),
)

UNFINISHED = (
    *(refuted(name, text, CUT) for name, text in ENDS),
    Case(
        "cut-second-call",
        f'{PARIS}; {{"name": "add", "parameters": {{"a": 1',
        CUT,
        content='; {"name": "add", "parameters": {"a": 1',
        calls=(("get_weather", {"city": "Paris"}),),
    ),
    Case(
        "cut-with-a-stop-token",
        '{"name": "get_weather", "parameters": {"city": "Paris"}<|eot_id|>',
        "rules: stop tokens at the end are never content",
        content='{"name": "get_weather", "parameters": {"city": "Paris"}',
    ),
)

NO_TOOLS = tuple(
    refuted(f"no-tools-{name}", text, "rules: without tools all is text, untouched", "none")
    for name, text in {
        "json": f"{PARIS}<|eot_id|>",
        "pythonic": "[get_time()]",
        "function": '<function=get_weather>{"city": "Paris"}</function></s>',
        "tag": "<|python_tag|>print(1)<|eom_id|>",
        "fence": f"\n```json\n{PARIS}\n```\n",
    }.items()
)

CASES = (*ANSWERS, *ALMOST, *BROKEN, *UNFINISHED, *NO_TOOLS)
