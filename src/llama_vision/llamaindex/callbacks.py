"""LlamaIndex's callback decorators, typed."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from llama_index.core.llms import callbacks

_Method = TypeVar("_Method", bound=Callable[..., Any])


def chat_callback(method: _Method) -> _Method:
    """Report the start and the end of a chat."""
    return cast("_Method", cast("Any", callbacks).llm_chat_callback()(method))


def completion_callback(method: _Method) -> _Method:
    """Report the start and the end of a completion."""
    return cast("_Method", cast("Any", callbacks).llm_completion_callback()(method))
