"""The tool that LlamaIndex's `FunctionCallingProgram` makes of a class, and answers in the shape that the program reads."""

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
    """Tell whether tools are the one that stands for a class whose object is wanted.

    Args:
        tools: As a model is offered them.

    Returns:
        The class; None for tools of any other kind.

    """
    if len(tools) != 1 or not isinstance(tools[0], FunctionTool):
        return None
    # LlamaIndex has no mark for it, but the function behind the tool is always the same one of its own.
    made_there = getattr(tools[0].real_fn, "__module__", None) == function_program.__name__
    return tools[0].metadata.fn_schema if made_there else None


def to_agent_response(tool: BaseTool, text: str, found: BaseModel) -> AgentChatResponse:
    """Write an object as the result of the tool's call.

    Args:
        tool: The one that stands for the class.
        text: The object's JSON, as the model wrote it.
        found: The object.

    """
    output = ToolOutput(
        tool_name=tool.metadata.get_name(),
        content=text,
        raw_input=dict(as_mapping(json.loads(text))),
        raw_output=found,
    )
    return AgentChatResponse(response=text, sources=[output])


def to_chat_response(text: str) -> ChatResponse:
    """Write the JSON of an object, whole or as far as it has come, as a response of a stream."""
    return ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, content=text), delta="")
