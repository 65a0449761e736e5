"""Calls in a pythonic list, as Llama 3.2's small text models are taught to write them."""

from tests.toolcalls.cases_record import (
    IN_PARIS,
    IN_ROME,
    META_32,
    NOT_OFFERED,
    PYTHONIC,
    THE_TIME,
    Case,
    refuted,
)

BRACKET = "https://github.com/sgl-project/sglang/pull/38869"
WEATHER_IN_TWO = (
    ("get_weather", {"city": "San Francisco", "metric": "celsius"}),
    ("get_weather", {"city": "Seattle", "metric": "celsius"}),
)

SHAPES = (
    Case(
        "pythonic-official",
        "[get_weather(city='San Francisco', metric='celsius'), get_weather(city='Seattle', metric='celsius')]<|eot_id|>",
        META_32,
        calls=WEATHER_IN_TWO,
    ),
    Case(
        "pythonic-official-with-tag",
        '<|python_tag|>[get_weather(city="San Francisco", metric="celsius")]<|eot_id|>',
        META_32,
        calls=WEATHER_IN_TWO[:1],
    ),
    Case(
        "pythonic-one",
        "[get_weather(city='Paris')]",
        "https://github.com/ollama/ollama/issues/7824",
        calls=(IN_PARIS,),
    ),
    Case(
        "pythonic-no-arguments",
        "[get_time()]",
        "https://github.com/vllm-project/vllm/issues/28806",
        calls=(THE_TIME,),
    ),
    Case(
        "pythonic-no-arguments-with-space",
        "[get_time( )]",
        "https://github.com/vllm-project/vllm/issues/28806",
        calls=(THE_TIME,),
    ),
    Case(
        "pythonic-three",
        "[get_time(), add(a=1, b=2), get_time()]",
        META_32,
        calls=(THE_TIME, ("add", {"a": 1, "b": 2}), THE_TIME),
    ),
    Case(
        "pythonic-on-lines-with-trailing-commas",
        '[\n    get_weather(\n        city="Paris",\n    ),\n    get_time(),\n]\n',
        "rules: trailing commas before ] and ) are fine",
        calls=(IN_PARIS, THE_TIME),
    ),
    Case(
        "pythonic-without-spaces",
        "[add(a=1,b=2),get_time()]",
        META_32,
        calls=(("add", {"a": 1, "b": 2}), THE_TIME),
    ),
    Case(
        "pythonic-with-many-spaces",
        "[ get_weather ( city = 'Paris' , unit = 'celsius' ) ]",
        "rules: keyword arguments with literal values",
        calls=(("get_weather", {"city": "Paris", "unit": "celsius"}),),
    ),
    Case(
        "pythonic-two-lists",
        "[get_time()]\n[add(a=1, b=2)]",
        PYTHONIC,
        calls=(THE_TIME, ("add", {"a": 1, "b": 2})),
    ),
    Case(
        "pythonic-two-lists-with-prose",
        "First [get_time()] and then [get_weather(city='Rome')] it is.",
        PYTHONIC,
        content="First  and then  it is.",
        calls=(THE_TIME, IN_ROME),
    ),
    Case(
        "pythonic-after-prose",
        "Let me look: [get_weather(city='Paris')]",
        PYTHONIC,
        content="Let me look: ",
        calls=(IN_PARIS,),
    ),
    Case(
        "pythonic-before-prose",
        "[get_weather(city='Paris')] I asked.",
        PYTHONIC,
        content=" I asked.",
        calls=(IN_PARIS,),
    ),
    Case(
        "pythonic-shorter-of-two-names",
        "[say_hello(to='Ann'), say_hello_world(loudly=True)]",
        "rules: the exact name",
        calls=(("say_hello", {"to": "Ann"}), ("say_hello_world", {"loudly": True})),
        tools="greetings",
    ),
    Case(
        "pythonic-unoffered-after-good",
        "[get_weather(city='Paris'), launch_rocket(at='noon')]",
        "rules: the good calls before an unoffered name stay calls",
        content=", launch_rocket(at='noon')]",
        calls=(IN_PARIS,),
    ),
    Case(
        "pythonic-unoffered-after-good-with-a-call-inside",
        """[get_time(), launch_rocket(a={"name": "get_time", "parameters": {}})]""",
        "rules: nothing inside a refuted structure is promoted",
        content=""", launch_rocket(a={"name": "get_time", "parameters": {}})]""",
        calls=(THE_TIME,),
    ),
    Case(
        "pythonic-positional-after-good",
        "[get_time(), get_weather('Paris')]",
        "rules: the good calls before a bad one stay calls",
        content=", get_weather('Paris')]",
        calls=(THE_TIME,),
    ),
    Case(
        "pythonic-cut-after-good",
        "[get_time(), get_weather(city='Par",
        "rules: the good calls before a bad one stay calls",
        content=", get_weather(city='Par",
        calls=(THE_TIME,),
    ),
    Case(
        "pythonic-offered-after-unoffered-after-good",
        "[get_time(), launch_rocket(), get_weather(city='Paris')]",
        "rules: the good calls before an unoffered name stay calls, the rest is text",
        content=", launch_rocket(), get_weather(city='Paris')]",
        calls=(THE_TIME,),
    ),
)

VALUES = (
    Case(
        "pythonic-words",
        "[set_lights(on=True, colour=None, at=[False, true, null])]",
        PYTHONIC,
        calls=(("set_lights", {"on": True, "colour": None, "at": [False, True, None]}),),
    ),
    Case(
        "pythonic-json-words",
        "[set_lights(on=false, colour=null)]",
        PYTHONIC,
        calls=(("set_lights", {"on": False, "colour": None}),),
    ),
    Case(
        "pythonic-tuple",
        "[set_lights(at=(1, 2.5))]",
        PYTHONIC,
        calls=(("set_lights", {"at": [1, 2.5]}),),
    ),
    Case(
        "pythonic-tuples-in-a-list",
        "[set_lights(at=[(1, 'a'), (2, 'b',)])]",
        PYTHONIC,
        calls=(("set_lights", {"at": [[1, "a"], [2, "b"]]}),),
    ),
    Case(
        "pythonic-dict",
        "[book_table(restaurant={'name': 'Chez Nous', \"address\": {'nr': 3}}, guests=[{'name': 'Ann'}, {}])]",
        "rules: dicts with string keys",
        calls=(
            (
                "book_table",
                {"restaurant": {"name": "Chez Nous", "address": {"nr": 3}}, "guests": [{"name": "Ann"}, {}]},
            ),
        ),
    ),
    Case(
        "pythonic-numbers-of-python",
        "[add(a=0x10, b=.5), add(a=1_000, b=+1)]",
        "rules: literal values of JSON or Python",
        calls=(("add", {"a": 16, "b": 0.5}), ("add", {"a": 1000, "b": 1})),
    ),
    Case(
        "pythonic-bracket-in-string",
        "[note(text='a ] b'), get_time()]",
        BRACKET,
        calls=(("note", {"text": "a ] b"}), THE_TIME),
    ),
    Case(
        "pythonic-all-brackets-in-strings",
        """[note(text=')]}'), note(text="({[")]""",
        BRACKET,
        calls=(("note", {"text": ")]}"}), ("note", {"text": "({["})),
    ),
    Case(
        "pythonic-separators-in-string",
        "[note(text='a, b=1; c')]",
        BRACKET,
        calls=(("note", {"text": "a, b=1; c"}),),
    ),
    Case(
        "pythonic-list-in-string",
        "[note(text='[get_time()]')]",
        BRACKET,
        calls=(("note", {"text": "[get_time()]"}),),
    ),
    Case(
        "pythonic-quotes-in-quotes",
        """[note(text="it's"), note(text='say "hi"')]""",
        "rules: strings with either quote",
        calls=(("note", {"text": "it's"}), ("note", {"text": 'say "hi"'})),
    ),
    Case(
        "pythonic-escapes",
        r"""[note(text='it\'s\n\t\\ \u00e9'), note(text="\"q\"")]""",
        "rules: strings with either quote",
        calls=(("note", {"text": "it's\n\t\\ é"}), ("note", {"text": '"q"'})),
    ),
    Case(
        "pythonic-unicode",
        "[note(text='Zürich 🌦️ 東京')]",
        "rules: arguments keep the characters that the model wrote",
        calls=(("note", {"text": "Zürich 🌦️ 東京"}),),
    ),
    Case(
        "pythonic-empty-values",
        "[note(text='', l=[], d={})]",
        PYTHONIC,
        calls=(("note", {"text": "", "l": [], "d": {}}),),
    ),
    Case(
        "pythonic-call-in-a-dict-is-a-value",
        "[note(text={'name': 'get_time', 'parameters': {}})]",
        "rules: arguments are the tool's own",
        calls=(("note", {"text": {"name": "get_time", "parameters": {}}}),),
    ),
)

REFUTED = (
    refuted("pythonic-positional", "[get_weather('Paris')]", "rules: positional arguments are text"),
    refuted("pythonic-positional-number", "[add(1, 2)]", "rules: positional arguments are text"),
    refuted("pythonic-mixed-arguments", "[add(a=1, 2)]", "rules: positional arguments are text"),
    refuted("pythonic-name-as-value", "[get_weather(city=city)]", "rules: names are text"),
    refuted("pythonic-placeholder", "[get_weather(city=params_value)]", META_32),
    refuted("pythonic-operator", "[add(a=1+1, b=2)]", "rules: operators are text"),
    refuted("pythonic-nested-call", "[note(text=get_time())]", "rules: nested calls are text"),
    refuted("pythonic-f-string", "[note(text=f'{city}')]", "rules: f-strings are text"),
    refuted("pythonic-set", "[set_lights(at={1, 2})]", "rules: sets are text"),
    refuted("pythonic-number-keys", "[note(text={1: 'a'})]", "rules: only string keys"),
    refuted("pythonic-keyword-twice", "[get_weather(city='Paris', city='Rome')]", "rules: repeated keywords"),
    refuted("pythonic-stars", "[get_weather(**{'city': 'Paris'})]", "rules: keyword arguments only"),
    refuted("pythonic-nested-list", "[[get_time()]]", PYTHONIC),
    refuted("pythonic-empty-list", "[]", PYTHONIC),
    refuted("pythonic-unoffered", "[launch_rocket(at='noon')]", NOT_OFFERED),
    refuted("pythonic-unoffered-first", "[launch_rocket(), get_time()]", NOT_OFFERED),
    refuted("pythonic-unoffered-prefix", "[say_hell(to='Ann')]", "rules: the exact name"),
    refuted("pythonic-unoffered-longer", "[say_hellos(to='Ann')]", "rules: the exact name"),
    refuted("pythonic-other-case", "[Get_Time()]", "rules: the exact name"),
    refuted(
        "pythonic-unoffered-with-a-call-inside",
        """[launch_rocket(a={"name": "get_time", "parameters": {}})]""",
        "rules: nothing inside a refuted structure is promoted",
    ),
    refuted("pythonic-without-list", "get_weather(city='Paris')", "rules: a list is the envelope"),
    refuted("pythonic-without-parentheses", "[get_time]", "rules: [ + identifier + ( begins a list"),
    refuted("pythonic-leading-zero", "[add(a=01, b=2)]", "rules: literal values of JSON or Python"),
    refuted("pythonic-complex-number", "[add(a=1j, b=2)]", "rules: JSON has no such number"),
    refuted("pythonic-missing-comma", "[add(a=1 b=2)]", "rules: invalid arguments are text"),
    refuted("pythonic-colon", "[get_weather(city: 'Paris')]", "rules: invalid arguments are text"),
    refuted("pythonic-double-comma", "[add(a=1,, b=2)]", "rules: invalid arguments are text"),
    refuted("pythonic-empty-value", "[add(a=, b=2)]", "rules: invalid arguments are text"),
    refuted("pythonic-wrong-bracket", "[set_lights(at=[1, 2))]", "rules: invalid arguments are text"),
)

CASES = (*SHAPES, *VALUES, *REFUTED)
