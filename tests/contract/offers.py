"""Finds the tools that were offered in what arrived, as a field or in words."""

import json

from tests.contract.abilities import reason_against


def definitions(content):
    """Read the definitions that were put into words."""
    found = []
    start = content.find('{\n    "type": "function"')
    while start >= 0:
        definition, end = json.JSONDecoder().raw_decode(content, start)
        found.append(definition)
        start = content.find('{\n    "type": "function"', end)
    return found


def arrived(subject):
    """The tools of the last request, wherever they stand in it."""
    body = subject.emulator.requests[-1].body
    if reason_against(subject.record, "tools"):
        assert "tools" not in body
        return definitions(body["messages"][0]["content"])
    assert "defined as follows" not in str(body["messages"])
    return body.get("tools", [])
