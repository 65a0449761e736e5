"""What only `<|python_tag|>` makes a call: `name.call(...)` chains, and raw code."""

from tests.toolcalls.cases_record import (
    CODE_WITHOUT_TOOL,
    META_31,
    META_33,
    NOT_OFFERED,
    PARIS,
    THE_TIME,
    Case,
    refuted,
)

PRIME = """def is_prime(n):
    if n <= 1
        return False
    for i in range(2, int(n**0.5) + 1):
        if n % i == 0:
            return False
    return True

print(is_prime(7))  # Output: True"""
REJECTED_CALL = "https://github.com/unslothai/unsloth/pull/5620"

DOT_CALL = (
    Case(
        "dot-call-official",
        '<|python_tag|>brave_search.call(query="latest price of 1oz gold")<|eom_id|>',
        META_31,
        calls=(("brave_search", {"query": "latest price of 1oz gold"}),),
    ),
    Case(
        "dot-call-wolfram",
        '<|python_tag|>wolfram_alpha.call(query="100th decimal of pi")<|eom_id|>',
        META_33,
        calls=(("wolfram_alpha", {"query": "100th decimal of pi"}),),
    ),
    Case(
        "dot-call-chain",
        "<|python_tag|>brave_search.call(query=\"gold\"); wolfram_alpha.call(query='2+2');get_time.call()",
        "rules: chained by semicolons",
        calls=(("brave_search", {"query": "gold"}), ("wolfram_alpha", {"query": "2+2"}), THE_TIME),
    ),
    Case(
        "dot-call-chain-with-tags",
        '<|python_tag|>brave_search.call(query="gold")<|eom_id|><|python_tag|>brave_search.call(query="tin")<|eom_id|>',
        "rules: the tag may be repeated, stop tokens between calls are skipped",
        calls=(("brave_search", {"query": "gold"}), ("brave_search", {"query": "tin"})),
    ),
    Case(
        "dot-call-several-arguments",
        "<|python_tag|>get_weather.call(city='Paris', days=-2, hours=[1.5, None], live=true)",
        "rules: keyword values as JSON or Python",
        calls=(("get_weather", {"city": "Paris", "days": -2, "hours": [1.5, None], "live": True}),),
    ),
    Case(
        "dot-call-quotes-and-brackets",
        r"""<|python_tag|>brave_search.call(query="\"gold\"); tin.call(x='{")""",
        "rules: strings are known as such",
        calls=(("brave_search", {"query": '"gold"); tin.call(x=\'{'}),),
    ),
    Case(
        "dot-call-with-a-code-tool",
        '<|python_tag|>brave_search.call(query="gold")<|eom_id|>',
        META_33,
        calls=(("brave_search", {"query": "gold"}),),
        tools="code",
    ),
    refuted("dot-call-without-tag", 'brave_search.call(query="gold")', "rules: only after the tag"),
    refuted("dot-call-unoffered", '<|python_tag|>bing_search.call(query="gold")', NOT_OFFERED),
    refuted("dot-call-positional", '<|python_tag|>brave_search.call("gold")', REJECTED_CALL),
    refuted("dot-call-name-as-value", "<|python_tag|>brave_search.call(query=question)", REJECTED_CALL),
    refuted(
        "dot-call-rejected-with-a-call-inside", f"<|python_tag|>bing_search.call({PARIS})", REJECTED_CALL
    ),
    refuted("dot-call-rejected-then-a-call", f"<|python_tag|>bing_search.call(q=1); {PARIS}", REJECTED_CALL),
    Case(
        "dot-call-chain-rejected-with-a-call-inside",
        f'<|python_tag|>brave_search.call(query="gold"); bing_search.call({PARIS})',
        REJECTED_CALL,
        content=f"; bing_search.call({PARIS})",
        calls=(("brave_search", {"query": "gold"}),),
    ),
    refuted("dot-other-method", '<|python_tag|>brave_search.run(query="gold")', "rules: name.call("),
)


def code(name: str, written: str, source: str, tools: str = "code", tool: str = "code_interpreter") -> Case:
    """Make a case of raw code behind the tag."""
    calls = ((tool, {"source" if tools == "source" else "code": written}),)
    return Case(name, f"<|python_tag|>{written}<|eom_id|>", source, calls=calls, tools=tools)


CODE = (
    code("code-official", PRIME, META_31),
    code("code-for-python", "print(1)", "rules: code tools", "python", "python"),
    code("code-for-ipython", "print('é', \"☃\")", "rules: code tools", "ipython", "ipython"),
    code("code-for-the-only-property", "print(1)", "rules: the tool's only property", "source"),
    code("code-with-a-call-inside", f"x = {PARIS}\nprint(x)", REJECTED_CALL),
    code("code-that-is-a-list", "[x for x in range(3)]", "rules: anything else is code"),
    code("code-that-is-a-list-of-numbers", "[1, 2, 3]", "rules: anything else is code"),
    code("code-that-is-a-dict", '{"a": 1}', "rules: anything else is code"),
    code("code-that-is-an-unoffered-call", 'bing_search.call(query="gold")', "rules: anything else is code"),
    code("code-with-escapes-and-quotes", "s = 'a\\n' + \"b\\\"\"\n\tprint(f'{s}')", "rules: raw code"),
    code("code-with-tags", "a = '<b>' < '</s>x'", "rules: stop tokens count at the end only"),
    Case(
        "code-after-prose",
        "Let me compute. <|python_tag|>print(6 * 7)",
        "rules: after prose",
        content="Let me compute. ",
        calls=(("code_interpreter", {"code": "print(6 * 7)"}),),
        tools="code",
    ),
    Case(
        "code-in-json",
        r'{"name": "code_interpreter", "parameters": {"code": "if x:\n    print({})"}}',
        META_33,
        calls=(("code_interpreter", {"code": "if x:\n    print({})"}),),
        tools="code",
    ),
    *(
        refuted(
            f"{name}-with-a-code-tool",
            f"<|python_tag|>{text}",
            "rules: a cut off call is text, whole",
            "code",
        )
        for name, text in {
            "cut-json": '{"name": "get_weather", "parameters": {"city": "Par',
            "cut-function": '<function=get_weather>{"city": "Par',
            "cut-pythonic": "[get_weather(city='Par",
            "cut-dot-call": 'brave_search.call(query="gol',
        }.items()
    ),
    refuted("code-without-tag", "print(6 * 7)", "rules: code needs the tag", "code"),
    refuted("code-without-a-tool", "<|python_tag|>print(6 * 7)", CODE_WITHOUT_TOOL),
    refuted("code-without-a-tool-with-a-call-inside", f"<|python_tag|>x = 1\n{PARIS}", CODE_WITHOUT_TOOL),
)

CASES = (*DOT_CALL, *CODE)
