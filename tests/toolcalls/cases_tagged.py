"""Calls behind a tag: `<function=...>`, and `<|python_tag|>` before the other envelopes."""

from tests.toolcalls.cases_record import (
    FUNCTION_TAG,
    GROQ,
    IN_PARIS,
    IN_ROME,
    META_31,
    META_32,
    META_33,
    NO_ARGUMENTS,
    NOT_OFFERED,
    PARIS,
    ROME,
    THE_TIME,
    TIME,
    UNKNOWN,
    Case,
    refuted,
)

FUNCTION = (
    Case(
        "function-official",
        '<function=trending_songs>{"n": 10}</function><|eot_id|>',
        META_31,
        calls=(("trending_songs", {"n": 10}),),
    ),
    Case(
        "function-without-close",
        '<function=get_weather>{"city": "Paris"}',
        FUNCTION_TAG,
        calls=(IN_PARIS,),
    ),
    Case(
        "function-without-close-but-stop-token",
        '<function=get_weather>{"city": "Paris"}<|eot_id|>',
        FUNCTION_TAG,
        calls=(IN_PARIS,),
    ),
    Case(
        "function-with-space",
        '<function=get_weather>\n  {"city": "Paris"}\n</function>\n',
        "rules: whitespace is allowed inside",
        calls=(IN_PARIS,),
    ),
    Case(
        "function-nested-object",
        '<function=book_table>{"restaurant": {"name": "a", "address": {"nr": 3}}, "guests": [{}]}</function>',
        FUNCTION_TAG,
        calls=(("book_table", {"restaurant": {"name": "a", "address": {"nr": 3}}, "guests": [{}]}),),
    ),
    Case(
        "function-brace-in-string",
        '<function=note>{"text": "a } b"}</function>',
        FUNCTION_TAG,
        calls=(("note", {"text": "a } b"}),),
    ),
    Case(
        "function-close-tag-in-string",
        '<function=note>{"text": "</function>"}</function>',
        FUNCTION_TAG,
        calls=(("note", {"text": "</function>"}),),
    ),
    Case("function-empty-object", "<function=get_time>{}</function>", META_31, calls=(THE_TIME,)),
    Case(
        "function-two",
        '<function=get_weather>{"city": "Paris"}</function>\n<function=get_weather>{"city": "Rome"}</function>',
        "rules: several envelopes",
        calls=(IN_PARIS, IN_ROME),
    ),
    Case(
        "function-shorter-of-two-names",
        '<function=say_hello>{"to": "Ann"}</function><function=say_hello_world>{"loudly": false}</function>',
        "rules: the exact name",
        calls=(("say_hello", {"to": "Ann"}), ("say_hello_world", {"loudly": False})),
        tools="greetings",
    ),
    Case(
        "function-amid-prose",
        'Sure. <function=get_weather>{"city": "Paris"}</function> Done.',
        FUNCTION_TAG,
        content="Sure.  Done.",
        calls=(IN_PARIS,),
    ),
    Case(
        "function-unclosed-before-another",
        '<function=get_weather>{"city": "Paris"}<function=get_time>{}</function>',
        "rules: a missing close tag is accepted only at the end",
        content='<function=get_weather>{"city": "Paris"}',
        calls=(THE_TIME,),
    ),
    refuted(
        "function-unclosed-before-prose",
        '<function=get_weather>{"city": "Paris"} and so on',
        "rules: a missing close tag is accepted only at the end",
    ),
    Case("function-without-object", "<function=get_time></function>", NO_ARGUMENTS, calls=(THE_TIME,)),
    Case("function-null", "<function=get_time>null</function>", NO_ARGUMENTS, calls=(THE_TIME,)),
    Case(
        "function-without-object-before-another",
        '<function=get_time> </function><function=get_weather>{"city": "Paris"}</function>',
        NO_ARGUMENTS,
        calls=(THE_TIME, IN_PARIS),
    ),
    Case(
        "function-groq-without-bracket",
        '<function=get_weather{"city": "Paris"}</function>',
        GROQ,
        calls=(IN_PARIS,),
    ),
    Case(
        "function-groq-bracket-behind",
        '<function=get_weather {"city": "Paris"}></function>',
        GROQ,
        calls=(IN_PARIS,),
    ),
    Case(
        "function-groq-two-brackets",
        '<function=get_weather>{"city": "Paris"}></function>',
        GROQ,
        calls=(IN_PARIS,),
    ),
    Case(
        "function-groq-two",
        '<function=get_weather{"city": "Paris"}</function> <function=get_time {}></function>',
        GROQ,
        calls=(IN_PARIS, THE_TIME),
    ),
    refuted("function-groq-unoffered", f"<function=launch_rocket{PARIS}</function>", NOT_OFFERED),
    refuted(
        "function-groq-more-behind", '<function=add{"a": 1}> + 2</function>', "rules: a complete envelope"
    ),
    refuted("function-header-alone", "<function=get_time>", NO_ARGUMENTS),
    refuted("function-word", "<function=get_time>now</function>", "rules: an object is needed"),
    refuted("function-list", '<function=get_weather>["Paris"]</function>', "rules: an object is needed"),
    refuted("function-unoffered", '<function=launch_rocket>{"at": "noon"}</function>', NOT_OFFERED),
    refuted(
        "function-example",
        '<function=example_function_name>{"example_name": "example_value"}</function>',
        META_31,
    ),
    refuted(
        "function-unoffered-with-a-call-inside",
        f"<function=launch_rocket>{PARIS}</function>",
        "rules: nothing inside a refuted structure is promoted",
    ),
    refuted("function-bad-json", '<function=add>{"a": 1, "b": }</function>', "rules: invalid JSON is text"),
    refuted(
        "function-more-after-object", '<function=add>{"a": 1} + 2</function>', "rules: a complete envelope"
    ),
    refuted("function-without-name", '<function>{"a": 1}</function>', "rules: an offered name is needed"),
    refuted(
        "function-name-as-attribute", '<function name="get_time">{}</function>', "rules: <function=name>"
    ),
)

TAG = (
    Case(
        "tag-json-official",
        '<|python_tag|>{\n    "type": "function",\n    "name": "trending_songs",\n    "parameters": {\n'
        '        "n": "10",\n        "genre": "all"\n    }\n}<|eom_id|>',
        META_31,
        calls=(("trending_songs", {"n": "10", "genre": "all"}),),
    ),
    Case(
        "tag-json",
        f"<|python_tag|>{PARIS}",
        "https://github.com/waybarrios/vllm-mlx/pull/580",
        calls=(IN_PARIS,),
    ),
    Case("tag-space-json", f"<|python_tag|> \n{PARIS}", "rules: whitespace is allowed", calls=(IN_PARIS,)),
    Case(
        "tag-repeated-between",
        f"<|python_tag|>{PARIS}<|python_tag|>{ROME}",
        "rules: the tag may be repeated",
        calls=(IN_PARIS, IN_ROME),
    ),
    Case(
        "tag-repeated-after-semicolon",
        f"<|python_tag|>{PARIS}; <|python_tag|>{TIME}<|eom_id|>",
        "https://github.com/ai-dynamo/dynamo/issues/8732",
        calls=(IN_PARIS, THE_TIME),
    ),
    Case(
        "tag-twice-before",
        f"<|python_tag|><|python_tag|>{PARIS}",
        "rules: the tag may be repeated",
        calls=(IN_PARIS,),
    ),
    Case(
        "tag-two-json-one-tag",
        f"<|python_tag|>{PARIS};{ROME}",
        "https://github.com/ai-dynamo/dynamo/pull/9536",
        calls=(IN_PARIS, IN_ROME),
    ),
    Case(
        "tag-json-list",
        f"<|python_tag|>[{PARIS}, {ROME}]",
        "rules: the tag before any envelope",
        calls=(IN_PARIS, IN_ROME),
    ),
    Case(
        "tag-function",
        '<|python_tag|><function=get_weather>{"city": "Paris"}</function>',
        "rules: the tag before any envelope",
        calls=(IN_PARIS,),
    ),
    Case(
        "tag-pythonic-two",
        "<|python_tag|>[get_weather(city='Paris'), get_time()]<|eom_id|>",
        META_32,
        calls=(IN_PARIS, THE_TIME),
    ),
    Case(
        "tag-after-prose",
        f"Let me see. <|python_tag|>{PARIS}",
        "rules: after prose",
        content="Let me see. ",
        calls=(IN_PARIS,),
    ),
    Case(
        "tag-json-then-prose",
        f"<|python_tag|>{PARIS} There you are.",
        "rules: prose after is kept exactly",
        content=" There you are.",
        calls=(IN_PARIS,),
    ),
    Case(
        "tag-json-with-a-code-tool",
        f"<|python_tag|>{PARIS}<|eom_id|>",
        META_33,
        calls=(IN_PARIS,),
        tools="code",
    ),
    Case(
        "tag-good-then-bad",
        f"<|python_tag|>{PARIS}; {UNKNOWN}",
        "https://github.com/atwmarshall/dead-reckoning/issues/30",
        content=f"; {UNKNOWN}",
        calls=(IN_PARIS,),
    ),
    refuted("tag-unoffered", f"<|python_tag|>{UNKNOWN}", NOT_OFFERED),
    refuted("tag-alone-in-prose", "Llama writes <|python_tag|> before code.", "rules: the tag stays text"),
    Case(
        "tag-plain-call",
        "<|python_tag|>get_weather(city='Paris')<|eom_id|>",
        "https://github.com/meta-llama/llama-models/issues/266",
        calls=(IN_PARIS,),
    ),
)

CASES = (*FUNCTION, *TAG)
