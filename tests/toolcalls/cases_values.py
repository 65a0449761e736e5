"""Values that are hard to read: strings with quotes and brackets, escapes, other scripts, numbers, depth."""

from tests.toolcalls.cases_record import META_32, PARIS, ROME, Case, refuted

BRACE = "https://github.com/ollama/ollama/issues/12017"
BRACKET = "https://github.com/sgl-project/sglang/pull/38869"
UNICODE = "rules: arguments keep the characters that the model wrote"


def noted(name: str, written: str, meant: str, source: str) -> Case:
    """Make a case of one string, as it is written in JSON and as it is meant."""
    text = f'{{"name": "note", "parameters": {{"text": "{written}"}}}}'
    return Case(name, text, source, calls=(("note", {"text": meant}),))


STRINGS = (
    noted("closing-brace-in-string", "a } b", "a } b", BRACE),
    noted("closing-braces-in-string", "}}}", "}}}", BRACE),
    noted("code-in-string", r"if (a) { f(\"}\"); }", 'if (a) { f("}"); }', BRACE),
    noted("brackets-in-string", "][)(", "][)(", BRACKET),
    noted("separators-in-string", "a; b, c: d", "a; b, c: d", "rules: strings are known as such"),
    noted("escaped-quotes", r"she said \"no\"", 'she said "no"', "rules: strings and escapes"),
    noted("escaped-backslash-at-the-end", r"C:\\dir\\", "C:\\dir\\", "rules: strings and escapes"),
    noted("all-short-escapes", r"\"\\\/\b\f\n\r\t", '"\\/\b\f\n\r\t', "rules: strings and escapes"),
    noted("empty-string", "", "", "rules: strings"),
    noted(
        "raw-newline",
        "one\ntwo\r\nthree",
        "one\ntwo\r\nthree",
        "rules: raw control characters become escapes",
    ),
    noted(
        "raw-tab-and-others", "a\tb\x01c\x1f", "a\tb\x01c\x1f", "rules: raw control characters become escapes"
    ),
    noted(
        "stop-token-in-string",
        "<|eot_id|> and </s>",
        "<|eot_id|> and </s>",
        "rules: strings are known as such",
    ),
    noted("python-tag-in-string", "<|python_tag|>x", "<|python_tag|>x", "rules: strings are known as such"),
    noted(
        "function-tag-in-string", "<function=f>{}</function>", "<function=f>{}</function>", "rules: strings"
    ),
    noted("fence-in-string", r"```json\n{}\n```", "```json\n{}\n```", "rules: strings are known as such"),
    noted("html-in-string", "<b class='x'>&amp;</b>", "<b class='x'>&amp;</b>", "rules: strings"),
    noted("accents", "Zürich, São Paulo, Αθήνα", "Zürich, São Paulo, Αθήνα", UNICODE),
    noted("far-scripts", "東京 القاهرة दिल्ली", "東京 القاهرة दिल्ली", UNICODE),
    noted("emoji", "🌦️ 👩‍👩‍👧", "🌦️ 👩‍👩‍👧", UNICODE),
    noted("unicode-escapes", r"Z\u00fcrich \u4E1c", "Zürich 东", UNICODE),
    noted("surrogate-pair-escapes", r"\ud83c\udf26 ok", "🌦 ok", UNICODE),
    noted("line-separators", "a\u2028b\u00a0c", "a\u2028b\u00a0c", UNICODE),
    noted("a-call-in-a-string", PARIS.replace('"', r"\""), PARIS, "rules: strings are known as such"),
    noted("long-string", "x{" * 3000, "x{" * 3000, "rules: strings are known as such"),
    Case(
        "quotes-in-a-key",
        r'{"name": "note", "parameters": {"te\"}xt": "v"}}',
        BRACE,
        calls=(("note", {'te"}xt': "v"}),),
    ),
    Case(
        "brace-in-string-and-another-call",
        f'{{"name": "note", "parameters": {{"text": "}} {{"}}}}; {ROME}',
        BRACE,
        calls=(("note", {"text": "} {"}), ("get_weather", {"city": "Rome"})),
    ),
)

NAMES = (
    Case(
        "unicode-name",
        '{"name": "天気", "parameters": {"city": "東京"}}',
        "rules: a name is any offered one",
        calls=(("天気", {"city": "東京"}),),
    ),
    Case(
        "unicode-name-escaped",
        r'{"name": "\u5929\u6c17", "parameters": {"city": "\u6771\u4eac"}}',
        "rules: a name is any offered one, and JSON may write it in escapes",
        calls=(("天気", {"city": "東京"}),),
    ),
    Case(
        "unicode-name-pythonic",
        "[天気(city='東京')]",
        "rules: a name is any offered one",
        calls=(("天気", {"city": "東京"}),),
    ),
    Case(
        "unicode-name-function-tag",
        '<function=天気>{"city": "東京"}</function>',
        "rules: a name is any offered one",
        calls=(("天気", {"city": "東京"}),),
    ),
    refuted("unicode-name-half", '{"name": "天", "parameters": {"city": "東京"}}', "rules: the exact name"),
)

NUMBERS = (
    Case(
        "quoted-numbers",
        '{"name": "add", "parameters": {"a": "3", "b": "-4.5"}}',
        "https://github.com/ollama/ollama/issues/7860",
        calls=(("add", {"a": "3", "b": "-4.5"}),),
    ),
    Case(
        "negative-and-fraction",
        '{"name": "add", "parameters": {"a": -3, "b": 0.25}}',
        "rules: numbers of JSON",
        calls=(("add", {"a": -3, "b": 0.25}),),
    ),
    Case(
        "exponents",
        '{"name": "add", "parameters": {"a": 1e3, "b": -2.5E-2, "c": 1E+2}}',
        "rules: numbers of JSON",
        calls=(("add", {"a": 1000.0, "b": -0.025, "c": 100.0}),),
    ),
    Case(
        "large-integer",
        '{"name": "add", "parameters": {"a": 12345678901234567890123, "b": 0}}',
        "rules: arguments keep the characters that the model wrote",
        calls=(("add", {"a": 12345678901234567890123, "b": 0}),),
    ),
    Case(
        "numbers-pythonic",
        "[add(a=-3, b=2.5), add(a=1e-3, b=0)]",
        META_32,
        calls=(("add", {"a": -3, "b": 2.5}), ("add", {"a": 0.001, "b": 0})),
    ),
    refuted(
        "leading-zero", '{"name": "add", "parameters": {"a": 01, "b": 2}}', "rules: invalid JSON is text"
    ),
    refuted("nan", '{"name": "add", "parameters": {"a": NaN, "b": 2}}', "rules: invalid JSON is text"),
    refuted(
        "infinity", '{"name": "add", "parameters": {"a": -Infinity, "b": 2}}', "rules: invalid JSON is text"
    ),
)


def nested(depth: int) -> str:
    """Write a call whose argument is a list in a list, and so on."""
    return f'{{"name": "set_lights", "parameters": {{"at": {"[" * depth}{"]" * depth}}}}}'


def lists(depth: int) -> list:
    return [lists(depth - 1)] if depth > 1 else []


DEPTH = (
    Case(
        "nested-schema",
        '{"name": "book_table", "parameters": {"restaurant": {"name": "Chez {Nous}", "address": {"street": '
        '{"nr": 3, "x": []}, "tags": [["a"], {}]}}, "guests": [{"name": "Ann", "arguments": {}}, {}]}}',
        "https://github.com/vllm-project/vllm/pull/27701",
        calls=(
            (
                "book_table",
                {
                    "restaurant": {
                        "name": "Chez {Nous}",
                        "address": {"street": {"nr": 3, "x": []}, "tags": [["a"], {}]},
                    },
                    "guests": [{"name": "Ann", "arguments": {}}, {}],
                },
            ),
        ),
    ),
    Case(
        "keys-of-the-envelope-in-arguments",
        '{"name": "note", "parameters": {"name": "get_weather", "parameters": {"city": "Paris"}, "type": "x"}}',
        "rules: arguments are the tool's own",
        calls=(("note", {"name": "get_weather", "parameters": {"city": "Paris"}, "type": "x"}),),
    ),
    Case(
        "value-outside-the-enum",
        '{"name": "get_weather", "parameters": {"city": "Paris", "unit": "kelvin"}}',
        "rules: arguments are not checked against the schema",
        calls=(("get_weather", {"city": "Paris", "unit": "kelvin"}),),
    ),
    Case(
        "value-of-the-enum",
        '{"name": "get_weather", "parameters": {"unit": "celsius", "city": "Paris"}}',
        META_32,
        calls=(("get_weather", {"unit": "celsius", "city": "Paris"}),),
    ),
    Case("deep", nested(60), "rules: nesting up to 100", calls=(("set_lights", {"at": lists(60)}),)),
    refuted("too-deep", nested(150), "rules: nesting deeper than 100 is text"),
    refuted("far-too-deep", nested(5000), "rules: nesting deeper than 100 is text"),
    refuted(
        "too-deep-in-objects",
        '{"name": "note", "parameters": ' + '{"a":' * 150 + "1" + "}" * 151,
        "rules: nesting deeper than 100 is text",
    ),
)

CASES = (*STRINGS, *NAMES, *NUMBERS, *DEPTH)
