"""The names that make a text a call: those of the request's tools."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llama_vision.core.call_options import parse_tool
from llama_vision.core.json_types import as_mapping
from llama_vision.core.request import Tool

_CODE_TOOLS = ("code_interpreter", "python", "ipython")
"""Tools that raw code after `<|python_tag|>` is for: Meta's name, llama.cpp's, and that of the role in the prompt."""

DOT_CALL = ".call"
"""How Meta's built-in tools are called: `brave_search.call(query="...")`."""


def prefixes(names: Iterable[str]) -> frozenset[str]:
    """Make the set of all prefixes of some names, the empty one and the names included."""
    return frozenset(name[:end] for name in names for end in range(len(name) + 1))


class ToolNames:
    """The names of the request's tools.

    Attributes:
        names: The tools' names.
        prefixes: All prefixes of the names, the names included.
        tagged_prefixes: Those of `name` and `name.call`, which may come after `<|python_tag|>`.
        max_length: Characters of the longest name.
        code_tool: The tool that takes raw code, with the name of its argument; None where there is none.
    """

    __slots__ = ("code_tool", "max_length", "names", "prefixes", "tagged_prefixes")

    def __init__(self, tools: Sequence[Tool | Mapping[str, Any]]) -> None:
        parsed = [tool if isinstance(tool, Tool) else parse_tool(tool) for tool in tools]
        self.names = frozenset(tool.name for tool in parsed)
        self.prefixes = prefixes(self.names)
        self.tagged_prefixes = prefixes(name + DOT_CALL for name in self.names)
        self.max_length = max(map(len, self.names), default=0)
        self.code_tool = next(
            ((tool.name, _code_argument(tool)) for tool in parsed if tool.name in _CODE_TOOLS), None
        )


def _code_argument(tool: Tool) -> str:
    properties = list(as_mapping(tool.parameters.get("properties")))
    return properties[0] if len(properties) == 1 else "code"
