"""Errors of the package's tree that are `ValueError`s too, as LlamaIndex expects."""

from llama_vision.core.errors import MalformedReplyError


class ToolArgumentsError(MalformedReplyError, ValueError):
    """The arguments of a tool call are not a JSON object, usually because the reply was cut off; no tool was called."""


class StructuredOutputError(MalformedReplyError, ValueError):
    """The model's reply doesn't validate as the output class."""
