"""Incremental parser of tool calls that a model wrote as text.

A call needs the exact name of a tool, an object of arguments (or null, for none), and a complete format around them. All else is text, emitted
whole and unchanged. The formats are those that Llama 3.x was trained on and those that it falls into:

* `{"name": "f", "parameters": {...}}`, with `arguments` for `parameters`, with or without `"type": "function"`; several
  separated by `;`, `,` or white space, or in a list;
* `<function=f>{...}</function>`, without an object where there are no arguments, its first `>` missing or late;
* `[f(a="x", b=1), g()]`, with literals for values;
* any of these behind `<|python_tag|>`, and there also `f.call(a="x")` and, where a tool takes code, the code itself;
* any of these in a Markdown fence.

https://github.com/meta-llama/llama-models/blob/main/models/llama3_2/text_prompt_format.md

Text that can't be part of a call is emitted at once; what could be is held until the first character that rules it out.
The arguments of a call are streamed, but for their last brace, which waits for the end of the format: a call that is cut off,
or goes wrong, never looks complete. The result does not depend on how the text was cut into pieces.
"""

from llama_vision.toolcalls.parser import ParsedOutput, ToolCallParser, parse_tool_calls

__all__ = ["ParsedOutput", "ToolCallParser", "parse_tool_calls"]
