"""Escapes and numbers as JSON and Python spell them, and words that go on for too long."""

from tests.toolcalls.cases_record import BOTH_KEYS, ENCODED_TWICE, Case, refuted

PYTHON = "https://docs.python.org/3/reference/lexical_analysis.html#escape-sequences"
NUMBER = "https://docs.python.org/3/reference/lexical_analysis.html#numeric-literals"
JSON = "https://www.rfc-editor.org/rfc/rfc8259#section-7"
INVALID = "rules: invalid JSON is text"
LITERALS = "rules: literal values of JSON or Python"
LONG = "rules: no name is that long, and Python reads no such number"


def noted(name: str, written: str, text: str, source: str = PYTHON) -> Case:
    """Make a case of a string in a Python call."""
    return Case(name, f"[note(text={written})]", source, calls=(("note", {"text": text}),))


ESCAPES = (
    noted("escape-of-two-digits", r"'\x41\xe9'", "Aé"),
    noted("escape-of-two-digits-in-double-quotes", r'"\x41"', "A"),
    noted("escape-of-four-digits", r"'\u00e9\u2603'", "é☃"),
    noted("escape-of-eight-digits", r"'\U0001f326'", "\U0001f326"),
    noted("escape-of-octal-digits", r"'\101\7\0x\1018'", "A\x07\x00xA8"),
    noted("escape-of-letters", r"'\a\b\f\n\r\t\v'", "\x07\b\f\n\r\t\v"),
    noted("escape-of-a-line-break", "'one \\\ntwo'", "one two"),
    noted("escape-that-is-none", r"'\d+\/\.'", r"\d+\/\."),
    noted("escape-of-a-control-character", "'\\\x01'", "\\\x01"),
    refuted("escape-by-name", r"[note(text='\N{SNOWMAN}')]", LITERALS),
    refuted("escape-beyond-unicode", r"[note(text='\U00110000')]", LITERALS),
    refuted("escape-of-other-digits", r"[note(text='\xg1')]", LITERALS),
    refuted("escape-at-the-end", "[note(text='\\", LITERALS),
    refuted("escape-of-octal-digits-at-the-end", r"[note(text='\10", LITERALS),
    refuted("escape-at-the-end-of-json", '{"name": "note", "parameters": {"text": "\\', INVALID),
    refuted("escape-of-other-digits-in-json", r'{"name": "note", "parameters": {"text": "\u00g1"}}', INVALID),
    Case(
        "escapes-of-json",
        r'{"name": "note", "parameters": {"text": "\"\\\/\b\f\n\r\t\u00E9"}}',
        JSON,
        calls=(("note", {"text": '"\\/\b\f\n\r\té'}),),
    ),
    Case(
        "escapes-in-names",
        r'{"n\u0061me": "\u006eote", "\u0070arameters": {}}',
        JSON,
        calls=(("note", {}),),
    ),
    Case(
        "escapes-of-a-whole-name",
        r'{"name": "\ud83c\udf26", "parameters": {}}',
        JSON,
        calls=(("\U0001f326", {}),),
        tools="emoji",
    ),
    refuted("escape-of-a-quote-before-a-call", r'{"text": "Say \"}\" [get_time()]"}', JSON),
)

NUMBERS = (
    Case(
        "numbers-of-python",
        "[add(a=0x1F, b=1_000, c=.5, d=1., e=0b11, f=0o17)]",
        NUMBER,
        calls=(("add", {"a": 31, "b": 1000, "c": 0.5, "d": 1.0, "e": 3, "f": 15}),),
    ),
    refuted("number-beyond-floats", "[add(a=1.e999, b=2)]", "rules: JSON has no such number"),
    refuted("number-of-other-digits", "[add(a=١٢, b=2)]", LITERALS),
    refuted("number-with-two-points", "[add(a=1.2.3, b=2)]", LITERALS),
    refuted("value-in-parentheses", "[add(a=(1), b=2)]", LITERALS),
    refuted("number-without-end", f"[add(a={'1' * 401}, b=2)]", LONG),
    refuted("number-without-end-in-json", f'{{"name": "add", "parameters": {{"a": {"1" * 401}}}}}', LONG),
)

OTHER = (
    refuted("keyword-without-end", f"[add({'a' * 201}=1)]", LONG),
    refuted("name-of-escapes-without-end", '{"name": "' + "\\u0067" * 500, LONG),
    refuted("name-twice", '{"name": "get_time", "name": "get_time", "parameters": {}}', BOTH_KEYS),
    refuted(
        "type-that-is-short",
        '{"type": "func", "name": "get_time", "parameters": {}}',
        "rules: another type is text",
    ),
    refuted("name-that-is-no-string", '{"name": 3, "parameters": {}}', "rules: the name is a string"),
    refuted(
        "object-encoded-twice-and-more",
        r'{"name": "note", "parameters": "{\"text\": \"a\"} b"}',
        ENCODED_TWICE,
    ),
)

CASES = (*ESCAPES, *NUMBERS, *OTHER)
