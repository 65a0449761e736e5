"""What stands around calls: prose, code fences, separators, stop tokens."""

from tests.toolcalls.cases_record import (
    AFTER_PROSE,
    BINGO,
    FENCED,
    IN_PARIS,
    IN_ROME,
    LEFTOVER,
    META_31,
    PARIS,
    ROME,
    THE_TIME,
    TIME,
    UNKNOWN,
    Case,
    refuted,
)

INTERLEAVED = "https://github.com/vercel/ai/issues/3521"
WRAPPED = "https://github.com/ollama/ollama/issues/13519"
SPLIT = "https://github.com/sgl-project/sglang/issues/35564"
DROPPED = "rules: separators between calls and at the very end are dropped"
STOPPED = "rules: stop tokens at the end are never content"

PROSE = (
    Case(
        "prose-before",
        f"I'll look that up. {PARIS}",
        AFTER_PROSE,
        content="I'll look that up. ",
        calls=(IN_PARIS,),
    ),
    Case("prose-before-touching", f"Calling:{PARIS}", AFTER_PROSE, content="Calling:", calls=(IN_PARIS,)),
    Case("prose-before-lines", f"Sure!\n\n{PARIS}\n", AFTER_PROSE, content="Sure!\n\n", calls=(IN_PARIS,)),
    Case(
        "prose-after",
        f"{PARIS}\n\nThat will tell us.",
        LEFTOVER,
        content="\n\nThat will tell us.",
        calls=(IN_PARIS,),
    ),
    Case("prose-after-touching", f"{PARIS}.", LEFTOVER, content=".", calls=(IN_PARIS,)),
    Case(
        "prose-after-comma", f"{PARIS}, as you asked", LEFTOVER, content=", as you asked", calls=(IN_PARIS,)
    ),
    Case("prose-after-semicolon", f"{PARIS}; done", LEFTOVER, content="; done", calls=(IN_PARIS,)),
    Case(
        "prose-around",
        f"  First this: {PARIS}  and then.  ",
        LEFTOVER,
        content="  First this:   and then.  ",
        calls=(IN_PARIS,),
    ),
    Case(
        "prose-between",
        f"{PARIS} Now Rome: {ROME}",
        INTERLEAVED,
        content=" Now Rome: ",
        calls=(IN_PARIS, IN_ROME),
    ),
    Case(
        "prose-everywhere",
        f"Paris.\n{PARIS}\nRome.\n{ROME}\nTime.\n{TIME}\nThat's all.",
        INTERLEAVED,
        content="Paris.\n\nRome.\n\nTime.\n\nThat's all.",
        calls=(IN_PARIS, IN_ROME, THE_TIME),
    ),
    Case(
        "prose-with-braces-before",
        f"Use {{braces}} and [brackets]: {PARIS}",
        AFTER_PROSE,
        content="Use {braces} and [brackets]: ",
        calls=(IN_PARIS,),
    ),
    Case(
        "prose-of-a-tag-before",
        f"a < b, <b>so</b> {PARIS}",
        AFTER_PROSE,
        content="a < b, <b>so</b> ",
        calls=(IN_PARIS,),
    ),
    Case(
        "braces-twice",
        f"{{{PARIS}}}",
        "rules: looking goes on behind a bare brace",
        content="{}",
        calls=(IN_PARIS,),
    ),
    Case(
        "mixed-envelopes",
        f'{PARIS}\n[get_time()]\n<function=get_weather>{{"city": "Rome"}}</function>',
        SPLIT,
        calls=(IN_PARIS, THE_TIME, IN_ROME),
    ),
    Case("prose-in-other-scripts", f"好的。{PARIS} 🌦️", SPLIT, content="好的。 🌦️", calls=(IN_PARIS,)),
)

SEPARATORS = (
    Case("semicolon-at-the-end", f"{PARIS};", DROPPED, calls=(IN_PARIS,)),
    Case("all-separators-at-the-end", f"{PARIS} ;\n, ;\t\n", DROPPED, calls=(IN_PARIS,)),
    Case("many-separators-between", f"{PARIS} ;\n,\n; {ROME}", DROPPED, calls=(IN_PARIS, IN_ROME)),
    Case(
        "separators-after-the-last-call-after-prose",
        f"So: {PARIS}\n",
        DROPPED,
        content="So: ",
        calls=(IN_PARIS,),
    ),
)

STOP_TOKENS = (
    *(
        Case(f"json-and-{token[1:-1].strip('|/')}", f"{PARIS}{token}", STOPPED, calls=(IN_PARIS,))
        for token in ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "</s>")
    ),
    Case("several-stop-tokens", f"{PARIS}<|eom_id|><|eot_id|>", STOPPED, calls=(IN_PARIS,)),
    Case("separator-and-stop-token", f"{PARIS};\n<|eot_id|>", STOPPED, calls=(IN_PARIS,)),
    Case("stop-token-and-newline", f"{PARIS}<|eot_id|>\n", STOPPED, calls=(IN_PARIS,)),
    Case(
        "stop-token-between",
        f"{PARIS}<|eom_id|>{ROME}<|eot_id|>",
        "rules: stop tokens between calls are skipped",
        calls=(IN_PARIS, IN_ROME),
    ),
    Case(
        "answer-and-stop-token",
        "The weather in San Francisco is 25 C.<|eot_id|>",
        META_31,
        content="The weather in San Francisco is 25 C.",
    ),
    Case("answer-and-two-stop-tokens", "Hi<|eom_id|></s>", STOPPED, content="Hi"),
    Case("nothing-but-a-stop-token", "<|eot_id|>", STOPPED),
    Case("refuted-and-stop-token", f"{UNKNOWN}<|eot_id|>", STOPPED, content=UNKNOWN),
    Case("person-and-stop-token", f"{BINGO}</s>", STOPPED, content=BINGO),
    Case(
        "prose-after-and-stop-token", f"{PARIS} Done.<|eot_id|>", STOPPED, content=" Done.", calls=(IN_PARIS,)
    ),
    refuted(
        "stop-token-in-the-middle",
        "The tag </s> ends <|eot_id|> a text.",
        "rules: stop tokens at the end only",
    ),
    refuted("half-a-stop-token", "Done.<|eot_", "rules: a half stop token is text"),
    refuted("half-a-python-tag", "Done.<|python_ta", "rules: a half tag is text"),
    refuted("half-a-function-tag", "Done.<function", "rules: a half tag is text"),
)


def fenced(name: str, text: str, content: str | None = None, *calls, source: str = FENCED) -> Case:
    """Make a case of a call in a code fence."""
    return Case(name, text, source, content=content, calls=calls or (IN_PARIS,))


FENCES = (
    fenced("fence-json", f"```json\n{PARIS}\n```", source=WRAPPED),
    fenced("fence-bare", f"```\n{PARIS}\n```", source=WRAPPED),
    fenced("fence-other-word", f"```tool_call\n{PARIS}\n```"),
    fenced("fence-in-line", f"```{PARIS}```"),
    fenced("fence-in-line-with-word", f"```json{PARIS}```"),
    fenced("fence-in-line-with-word-and-space", f"```json {PARIS} ```"),
    fenced("fence-python", "```python\n[get_weather(city='Paris')]\n```"),
    fenced("fence-function", '```\n<function=get_weather>{"city": "Paris"}</function>\n```'),
    fenced("fence-around-tag", f"```\n<|python_tag|>{PARIS}\n```"),
    fenced("fence-and-stop-token", f"```json\n{PARIS}\n```<|eot_id|>"),
    fenced("fence-and-newline", f"\n```json\n{PARIS}\n```\n"),
    fenced(
        "fence-after-prose", f"Here you are:\n\n```json\n{PARIS}\n```", "Here you are:\n\n", source=WRAPPED
    ),
    fenced("fence-before-prose", f"```json\n{PARIS}\n```\nI asked.", "\nI asked."),
    fenced("fence-amid-prose", f"So ```{PARIS}``` it is", "So  it is"),
    fenced("fence-of-two", f"```json\n{PARIS}\n{ROME}\n```", None, IN_PARIS, IN_ROME),
    fenced("fence-of-a-list", f"```json\n[\n{PARIS},\n{ROME}\n]\n```", None, IN_PARIS, IN_ROME),
    fenced("two-fences", f"```json\n{PARIS}\n```\n\n```json\n{ROME}\n```", None, IN_PARIS, IN_ROME),
    fenced("fence-that-ends-early", f"```json\n{PARIS}\n``{ROME}", "\n``", IN_PARIS, IN_ROME),
    fenced("fence-then-bare", f"```json\n{PARIS}\n```\n{TIME}", None, IN_PARIS, THE_TIME),
    fenced("bare-then-fence", f"{TIME}\n```json\n{PARIS}\n```", None, THE_TIME, IN_PARIS),
    fenced(
        "fence-with-fence-in-a-string",
        '```\n{"name": "note", "parameters": {"text": "```"}}\n```',
        None,
        ("note", {"text": "```"}),
    ),
    fenced(
        "program-then-fence",
        f"```c\nint main() {{ return 0; }}\n```\n```json\n{PARIS}\n```",
        "```c\nint main() { return 0; }\n```\n",
    ),
    fenced(
        "program-in-a-fence-then-bare",
        f"```c\nint main() {{ return 0; }}\n```\n{PARIS}",
        "```c\nint main() { return 0; }\n```\n",
    ),
    fenced("code-in-line-then-bare", f"As ```b``` says: {PARIS}", "As ```b``` says: "),
    fenced("code-in-line-right-before", f"So ```b``` {PARIS}", "So ```b``` "),
    refuted("fence-of-a-person", f"```json\n{BINGO}\n```", FENCED),
    refuted("fence-of-an-unoffered-call", f"```json\n{UNKNOWN}\n```", FENCED),
    refuted("fence-of-python", "```python\nprint('hi')\n```", FENCED),
    refuted("fence-empty", "```\n```", FENCED),
    refuted("fence-unfinished", "```json", FENCED),
    refuted("fence-of-one-tick", "Use `get_time` for that.", FENCED),
)

CASES = (*PROSE, *SEPARATORS, *STOP_TOKENS, *FENCES)
