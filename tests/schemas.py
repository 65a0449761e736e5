"""JSON schemas drawn by lot: nested objects, lists, enums, unions, references, limits on words and numbers.

Every one has an end: no form refers to itself and all is bounded, so that an answer that is kept to it comes to an end with
any weights.
"""

import random

_NAMES = ("name", "size", "color", "inside", "count", "when", "kind of thing", "caf\u00e9", "a/b", "x", "$id")
_WORDS = ("red", "green", "a b", 'a "quoted" word', "caf\u00e9", "", "7", "true", "\\", "{}")
_PATTERNS = ("^[A-Z]{2}-[0-9]{1,4}$", "^(yes|no)$", "^[a-z]{0,5}$")


def drawn_schema(seed):
    """Draw an object's schema; equal seeds draw equal ones."""
    chance = random.Random(seed)
    forms = {f"form{number}": _form(chance, 1, {}) for number in range(chance.randint(0, 3))}
    schema = _object(chance, 3, forms)
    return {**schema, "$defs": forms} if forms else schema


def _form(chance, depth, forms):
    kinds = [_string, _string, _integer, _number, _enum, _other, _union]
    if depth > 0:
        kinds += [_object, _object, _list, _list]
    if forms:
        kinds += [_reference] * 3
    return chance.choice(kinds)(chance, depth - 1, forms)


def _object(chance, depth, forms):
    names = chance.sample(_NAMES, chance.randint(1, 3))
    schema = {
        "type": "object",
        "properties": {name: _form(chance, depth, forms) for name in names},
        "required": chance.sample(names, chance.randint(0, len(names))),
    }
    if chance.random() < 0.5:
        schema["additionalProperties"] = False
    return schema


def _list(chance, depth, forms):
    least = chance.randint(0, 2)
    return {
        "type": "array",
        "items": _form(chance, min(depth, 1), forms),
        "minItems": least,
        "maxItems": least + 1,
    }


def _union(chance, depth, forms):
    return {"anyOf": [_form(chance, min(depth, 0), forms) for _ in range(chance.randint(2, 3))]}


def _reference(chance, depth, forms):
    name = chance.choice(sorted(forms))
    reference = {"$ref": f"#/$defs/{name}"}
    return chance.choice([reference, {"anyOf": [reference, {"type": "null"}]}])


def _string(chance, depth, forms):
    if chance.random() < 0.3:
        return {"type": "string", "pattern": chance.choice(_PATTERNS)}
    least = chance.randint(0, 3)
    return {"type": "string", "minLength": least, "maxLength": least + chance.randint(0, 9)}


def _integer(chance, depth, forms):
    least = chance.randint(-999, 999)
    return {"type": "integer", "minimum": least, "maximum": least + chance.randint(0, 10_000)}


def _number(chance, depth, forms):
    return {"enum": [chance.randint(-9, 9) / 4, chance.randint(10, 99), 1e20]}


def _enum(chance, depth, forms):
    return chance.choice(
        [
            {"enum": chance.sample(_WORDS, chance.randint(1, 5))},
            {"enum": [None, 1, "one", {"one": [1]}]},
            {"const": chance.choice(_WORDS)},
        ]
    )


def _other(chance, depth, forms):
    return chance.choice(
        [{"type": "boolean"}, {"type": ["string", "null"], "maxLength": 8}, {"type": "null"}]
    )
