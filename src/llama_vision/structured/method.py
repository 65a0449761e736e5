"""How an answer of a given form is best asked for at a provider."""

from typing import Literal, TypeAlias, get_args

from llama_vision.core.errors import ConfigurationError
from llama_vision.providers.provider import Provider

StructuredMethod: TypeAlias = Literal["auto", "json_schema", "function_calling", "json_mode", "prompt"]


class StructuredMethodError(ConfigurationError, ValueError):
    """There is no such way to ask for an answer of a given form, or it does not go with other arguments."""


def parse_method(method: str) -> StructuredMethod:
    """Take a method that a user wrote.

    Args:
        method: One of `StructuredMethod`.

    Returns:
        The same.

    Raises:
        StructuredMethodError: It is none of them; the text names them.

    """
    for known in get_args(StructuredMethod):
        if method == known:
            return known
    raise StructuredMethodError(
        f"There is no method {method!r} for structured output. Known are: {', '.join(get_args(StructuredMethod))}."
    )


def best_method(provider: Provider, model: str) -> Literal["json_schema", "function_calling", "prompt"]:
    """Choose the way that most surely gives an answer that fits a schema.

    Args:
        provider: Who is asked.
        model: Our name for the model, or the provider's id.

    Returns:
        `json_schema` where that truly constrains what the model writes, else `function_calling` where the model can be
        made to call a tool, else `prompt`: the schema is part of the question.

    """
    info = provider.model_info(model)
    if _enforces_schema(provider, model) and "json_schema" in info.response_formats:
        return "json_schema"
    if info.tools and provider.supports("tools") and provider.supports("tool_choice"):
        return "function_calling"
    return "prompt"


def _enforces_schema(provider: Provider, model: str) -> bool:
    """Tell whether the schema is kept to; a model that is not in the record is taken to be as those that are.

    Constrained decoding is done by the server, whatever the weights, and people give their own files any name.
    """
    info = provider.model_info(model)
    like = (info,) if info in provider.models else provider.models
    return provider.supports("response_format") and all(one.enforces_schema for one in like)
