"""Calls that are JSON objects."""

from tests.toolcalls.cases_record import (
    ENCODED_TWICE,
    IN_PARIS,
    META_31,
    NO_ARGUMENTS,
    PARIS,
    PYTHON_IN_JSON,
    THE_TIME,
    TIME,
    Case,
)

SHAPES = (
    Case("json", PARIS, META_31, calls=(IN_PARIS,)),
    Case(
        "json-arguments",
        '{"name": "get_weather", "arguments": {"city": "Paris"}}',
        "https://github.com/raullenchai/Rapid-MLX/pull/703",
        calls=(IN_PARIS,),
    ),
    Case(
        "json-type-function",
        '{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}',
        META_31,
        calls=(IN_PARIS,),
    ),
    Case(
        "json-type-last",
        '{"name": "get_weather", "parameters": {"city": "Paris"}, "type": "function"}',
        "rules: any order of keys",
        calls=(IN_PARIS,),
    ),
    Case(
        "json-arguments-before-the-name",
        '{"parameters": {"city": "Paris"}, "name": "get_weather"}',
        "rules: any order of keys",
        calls=(IN_PARIS,),
    ),
    Case(
        "json-arguments-name-type",
        '{"arguments": {"a": 1, "b": 2}, "name": "add", "type": "function"}',
        "rules: any order of keys",
        calls=(("add", {"a": 1, "b": 2}),),
    ),
    Case(
        "json-id-first",
        '{"id": "call_7", "name": "get_weather", "parameters": {"city": "Paris"}}',
        "rules: an id before the arguments is the call's",
        calls=(IN_PARIS,),
        ids=("call_7",),
    ),
    Case(
        "json-id-after-the-name",
        '{"name": "get_time", "id": "toolu_01", "parameters": {}}',
        "rules: an id before the arguments is the call's",
        calls=(THE_TIME,),
        ids=("toolu_01",),
    ),
    Case(
        "json-id-too-late",
        '{"name": "get_weather", "parameters": {"city": "Paris"}, "id": "call_7"}',
        "rules: an id after the arguments comes too late",
        calls=(IN_PARIS,),
    ),
    Case(
        "json-function-is-the-name",
        '{"function": "get_weather", "parameters": {"city": "Paris"}}',
        "rules: function as the name",
        calls=(IN_PARIS,),
    ),
    Case(
        "json-type-and-function-as-name",
        '{"type": "function", "function": "add", "parameters": {"a": 1, "b": 2}}',
        "https://github.com/ollama/ollama/issues/7860",
        calls=(("add", {"a": 1, "b": 2}),),
    ),
    Case(
        "json-nested-function-parameters",
        '{"function": {"name": "get_weather", "parameters": {"city": "Paris"}}}',
        "rules: a nested function",
        calls=(IN_PARIS,),
    ),
    Case(
        "json-nested-function-arguments",
        '{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}',
        "rules: a nested function",
        calls=(IN_PARIS,),
    ),
    Case(
        "json-as-openai-writes-it",
        r'{"id": "call_abc", "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\": \"Paris\"}"}}',
        "rules: a nested function with the id before it, arguments encoded twice",
        calls=(IN_PARIS,),
        ids=("call_abc",),
    ),
    Case(
        "json-arguments-encoded-twice",
        r'{"name": "get_weather", "arguments": "{\"city\": \"Paris\"}"}',
        ENCODED_TWICE,
        calls=(IN_PARIS,),
    ),
    Case(
        "json-parameters-encoded-twice-with-escapes",
        r'{"name": "note", "parameters": "{\"text\": \"a \\\"b\\\" \\n \\u00e9\"}"}',
        ENCODED_TWICE,
        calls=(("note", {"text": 'a "b" \n é'}),),
    ),
    Case(
        "json-empty-object-encoded-twice",
        '{"name": "get_time", "arguments": "{}"}',
        ENCODED_TWICE,
        calls=(THE_TIME,),
    ),
    Case(
        "json-encoded-twice-before-the-name",
        r'{"arguments": "{\"city\": \"Paris\"}", "name": "get_weather"}',
        ENCODED_TWICE,
        calls=(IN_PARIS,),
    ),
    Case(
        "json-unknown-key-after",
        '{"name": "get_weather", "parameters": {"city": "Paris"}, "reason": ["asked", {"by": "user"}]}',
        "rules: later unknown keys are ignored",
        calls=(IN_PARIS,),
    ),
    Case(
        "json-unknown-key-between",
        '{"name": "get_weather", "strict": true, "parameters": {"city": "Paris"}}',
        "rules: later unknown keys are ignored",
        calls=(IN_PARIS,),
    ),
    Case(
        "json-description-after",
        '{"name": "get_weather", "parameters": {"city": "Paris"}, "description": "the weather"}',
        "rules: only a description before the arguments makes a definition",
        calls=(IN_PARIS,),
    ),
    Case("json-no-arguments", TIME, "https://github.com/vllm-project/vllm/issues/28806", calls=(THE_TIME,)),
    Case(
        "json-no-arguments-with-space",
        '{"name": "get_time", "arguments": { } }',
        "https://github.com/vllm-project/vllm/issues/28806",
        calls=(THE_TIME,),
    ),
    Case(
        "json-on-many-lines",
        '{\n    "name" : "get_weather" ,\n\t"parameters" :\r\n {\n "city" : "Paris"\n }\n}\n',
        META_31,
        calls=(IN_PARIS,),
    ),
    Case(
        "json-without-any-space",
        '{"name":"add","parameters":{"a":1,"b":2}}',
        META_31,
        calls=(("add", {"a": 1, "b": 2}),),
    ),
    Case(
        "json-name-with-hyphen-and-dot",
        '{"name": "look-up.v2", "parameters": {"key": "k"}}',
        "rules: a name is any offered one",
        calls=(("look-up.v2", {"key": "k"}),),
    ),
    Case(
        "json-leading-space",
        f"\n\n  {PARIS}",
        "rules: leading whitespace before a call that begins the message is dropped",
        calls=(IN_PARIS,),
    ),
    Case(
        "json-shorter-of-two-names",
        '{"name": "say_hello", "parameters": {"to": "Ann"}}',
        "rules: the exact name, looked at after its closing quote",
        calls=(("say_hello", {"to": "Ann"}),),
        tools="greetings",
    ),
    Case(
        "json-longer-of-two-names",
        '{"name": "say_hello_world", "parameters": {"loudly": true}}',
        "rules: the exact name, looked at after its closing quote",
        calls=(("say_hello_world", {"loudly": True}),),
        tools="greetings",
    ),
)

PYTHON_SPELLING = (
    Case(
        "python-quotes",
        "{'name': 'get_weather', 'parameters': {'city': 'Paris'}}",
        PYTHON_IN_JSON,
        calls=(IN_PARIS,),
    ),
    Case(
        "python-quotes-in-arguments-only",
        """{"name": "get_weather", "parameters": {'city': 'Paris'}}""",
        PYTHON_IN_JSON,
        calls=(IN_PARIS,),
    ),
    Case(
        "python-words",
        '{"name": "set_lights", "parameters": {"on": True, "colour": None, "at": [False, true, null]}}',
        PYTHON_IN_JSON,
        calls=(("set_lights", {"on": True, "colour": None, "at": [False, True, None]}),),
    ),
    Case(
        "python-words-in-strings-stay",
        '{"name": "note", "parameters": {"text": "True, None and \'so\'"}}',
        PYTHON_IN_JSON,
        calls=(("note", {"text": "True, None and 'so'"}),),
    ),
    Case(
        "python-double-quotes-in-single",
        """{'name': 'note', 'parameters': {'text': 'say "hi"'}}""",
        PYTHON_IN_JSON,
        calls=(("note", {"text": 'say "hi"'}),),
    ),
    Case(
        "python-apostrophes",
        r"""{'name': 'note', 'parameters': {'text': "it's", 'more': 'it\'s'}}""",
        PYTHON_IN_JSON,
        calls=(("note", {"text": "it's", "more": "it's"}),),
    ),
    Case(
        "python-list-of-dicts",
        "[{'name': 'get_time', 'arguments': {}}, {'name': 'add', 'arguments': {'a': 1, 'b': -2}}]",
        PYTHON_IN_JSON,
        calls=(THE_TIME, ("add", {"a": 1, "b": -2})),
    ),
)

NOTHING = (
    Case("arguments-null", '{"name": "get_time", "arguments": null}', NO_ARGUMENTS, calls=(THE_TIME,)),
    Case("parameters-null", '{"parameters": null, "name": "get_time"}', NO_ARGUMENTS, calls=(THE_TIME,)),
    Case("arguments-none", "{'name': 'get_time', 'arguments': None}", NO_ARGUMENTS, calls=(THE_TIME,)),
)

CASES = (*SHAPES, *PYTHON_SPELLING, *NOTHING)
