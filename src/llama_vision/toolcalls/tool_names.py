"""The names that make a text a call: those of the tools on offer."""

from collections.abc import Mapping, Sequence
from typing import Any

from llama_vision.core.call_options import parse_tool
from llama_vision.core.json_types import as_mapping
from llama_vision.core.request import Tool

_CODE_TOOLS = ("code_interpreter", "python", "ipython")
"""What raw code after `<|python_tag|>` is meant for: Meta's name, llama.cpp's, and that of the role in the prompt."""

DOT_CALL = ".call"
"""What Meta's built-in tools are called by: `brave_search.call(query="...")`."""


class ToolNames:
    """What is on offer.

    Attributes:
        names: The tools' names.
        prefixes: All beginnings of the names, the names included.
        tagged_prefixes: All beginnings of what stands before a parenthesis behind `<|python_tag|>`: `name` or `name.call`.
        longest: Characters of the longest name.
        code_tool: The tool that takes raw code, with the name of its argument; None where there is none.

    """

    __slots__ = ("code_tool", "longest", "names", "prefixes", "tagged_prefixes")

    def __init__(self, tools: Sequence[Tool | Mapping[str, Any]]) -> None:
        offered = [tool if isinstance(tool, Tool) else parse_tool(tool) for tool in tools]
        self.names = frozenset(tool.name for tool in offered)
        self.prefixes = frozenset(name[:end] for name in self.names for end in range(len(name) + 1))
        self.tagged_prefixes = self.prefixes | {
            name + DOT_CALL[:end] for name in self.names for end in range(len(DOT_CALL) + 1)
        }
        self.longest = max(map(len, self.names), default=0)
        self.code_tool = next(
            ((tool.name, _code_argument(tool)) for tool in offered if tool.name in _CODE_TOOLS), None
        )


def _code_argument(tool: Tool) -> str:
    properties = list(as_mapping(tool.parameters.get("properties")))
    return properties[0] if len(properties) == 1 else "code"
