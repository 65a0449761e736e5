"""Tool calls that a model wrote as text, found while the text comes.

A call needs a name that is on offer, exactly; an object of arguments; and a complete envelope. All else is words, passed on
whole and unchanged. The envelopes are those that Llama 3.x was taught and those that it falls into:

* `{"name": "f", "parameters": {...}}`, with `arguments` for `parameters`, with or without `"type": "function"`; several
  separated by `;`, `,` or white space, or in a list;
* `<function=f>{...}</function>`;
* `[f(a="x", b=1), g()]`, with literals for values;
* any of these behind `<|python_tag|>`, and there also `f.call(a="x")` and, where a tool takes code, the code itself;
* any of these in a Markdown fence.

https://github.com/meta-llama/llama-models/blob/main/models/llama3_2/text_prompt_format.md

Words that can't be part of a call are passed on at once, and what could be is held until the first character that rules it
out. The arguments of a call are passed on as they come, but for their last brace, which waits for the end of the envelope: a
call that is cut off, or goes wrong, never looks like one. The result does not depend on how the text was cut into pieces.
"""

from llama_vision.toolcalls.event_filter import TextToolCallExtractor
from llama_vision.toolcalls.parser import ParsedOutput, ToolCallParser, parse_tool_calls

__all__ = ["ParsedOutput", "TextToolCallExtractor", "ToolCallParser", "parse_tool_calls"]
