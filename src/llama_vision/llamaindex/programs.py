"""The tool that LlamaIndex's `FunctionCallingProgram` makes of a pydantic class, and responses in the form that it reads."""

import json
from collections.abc import Sequence

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole
from llama_index.core.chat_engine.types import AgentChatResponse
from llama_index.core.program import function_program
from llama_index.core.tools.function_tool import FunctionTool
from llama_index.core.tools.types import BaseTool, ToolOutput
from pydantic import BaseModel

from llama_vision.core.json_types import as_mapping


def output_class_of(tools: Sequence[BaseTool]) -> type[BaseModel] | None:
    """Return the output class if the tools are a program's single tool, else None."""
    if len(tools) != 1 or not isinstance(tools[0], FunctionTool):
        return None
    # LlamaIndex doesn't mark it, but the function behind the tool always comes from this module.
    from_program = getattr(tools[0].real_fn, "__module__", None) == function_program.__name__
    return tools[0].metadata.fn_schema if from_program else None


def to_agent_response(tool: BaseTool, output: BaseModel, text: str) -> AgentChatResponse:
    """Present an object and its JSON text, as the model wrote it, as the output of the program's tool."""
    source = ToolOutput(
        tool_name=tool.metadata.get_name(),
        content=text,
        raw_input=dict(as_mapping(json.loads(text))),
        raw_output=output,
    )
    return AgentChatResponse(response=text, sources=[source])


def to_chat_response(text: str) -> ChatResponse:
    """Present the JSON of an object, whole or partial, as a response of a stream."""
    return ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, content=text), delta="")
