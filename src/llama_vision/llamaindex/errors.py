"""Errors that LlamaIndex's parts know as `ValueError`s, in the error tree of this package."""

from llama_vision.core.errors import MalformedReplyError


class ToolArgumentsError(MalformedReplyError, ValueError):
    """The arguments of a tool call are not a JSON object, mostly because the reply was cut off; no tool was called."""


class StructuredOutputError(MalformedReplyError, ValueError):
    """The model gave no answer that fits the class."""
