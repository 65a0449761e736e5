"""Choose how structured output is requested from a provider, and plan the call."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, assert_never, cast, get_args

from llama_vision.adaptation.prompted_tools import emulates_parallel_tool_calls
from llama_vision.core.call_options import parse_tool
from llama_vision.core.errors import ConfigurationError, UnsupportedInputError
from llama_vision.core.request import ChatRequest, ToolChoice
from llama_vision.providers.provider import Provider
from llama_vision.structured.extract import schema_instructions
from llama_vision.structured.output_schema import OutputSchema

ResolvedMethod: TypeAlias = Literal["json_schema", "function_calling", "json_mode", "prompt"]
StructuredMethod: TypeAlias = Literal["auto", "json_schema", "function_calling", "json_mode", "prompt"]

MAX_OUTPUT_RETRIES = 2
"""Retries of a reply that does not validate; small models that fail three times go on failing."""


class StructuredMethodError(ConfigurationError, ValueError):
    """The structured-output method is unknown, or conflicts with other arguments."""


@dataclass(frozen=True, slots=True)
class StructuredOutputPlan:
    """How structured output is requested.

    Attributes:
        schema: What replies are validated against.
        method: The resolved method.
        options: Call options, by the names of `core.call_options`.
        instructions: Text to append to the prompt; empty if the options are enough.
        max_retries: Retries of a reply that does not validate.
    """

    schema: OutputSchema
    method: ResolvedMethod
    options: Mapping[str, Any]
    instructions: str
    max_retries: int

    @property
    def validates_dicts(self) -> bool:
        """Whether JSON for a schema without a class is validated; classes always are."""
        return self.max_retries > 0

    def merge_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Add the plan's call options to the caller's.

        Raises:
            UnsupportedInputError: The caller sets `tools` or `response_format`.
        """
        if conflicts := sorted(options.keys() & {"tools", "response_format"}):
            raise UnsupportedInputError(
                f"Structured output sets {conflicts[0]} by itself: leave it out, or call the model without a schema."
            )
        return {**options, **self.options}


def parse_method(method: str) -> StructuredMethod:
    """Check the name of a method; `StructuredMethodError` names the known ones."""
    known = get_args(StructuredMethod)
    if method not in known:
        raise StructuredMethodError(
            f"There is no method {method!r} for structured output. Known are: {', '.join(known)}."
        )
    return cast("StructuredMethod", method)


def plan_structured_output(
    schema: OutputSchema,
    method: str,
    provider: Provider,
    model: str,
    *,
    strict: bool | None = None,
    text_tool_calls: bool = True,
) -> StructuredOutputPlan:
    """Decide how structured output is requested.

    `auto` and `prompt` validate every reply and retry; the other methods send one request.

    Args:
        schema: The output schema.
        method: One of `StructuredMethod`.
        provider: The provider's record.
        model: Our name for the model, or the provider's id.
        strict: Whether the provider is asked to enforce the schema; None leaves the field out.
        text_tool_calls: Whether tools may be emulated as text.

    Raises:
        StructuredMethodError: The method is unknown, or conflicts with the other arguments.
    """
    requested = parse_method(method)
    if strict is not None and requested == "json_mode":
        raise StructuredMethodError(
            "strict says how closely to keep to a schema, of which json_mode knows nothing."
        )
    if schema.json_schema is None and requested != "json_mode":
        raise StructuredMethodError(f"method={requested!r} needs a schema; only json_mode does without.")
    resolved: ResolvedMethod = best_method(provider, model) if requested == "auto" else requested
    if requested == "auto" and resolved == "function_calling" and not schema.is_object:
        resolved = "prompt"  # the arguments of a tool have to be an object
    spec = schema.json_schema
    max_retries = MAX_OUTPUT_RETRIES if requested in ("auto", "prompt") else 0
    if strict is None and provider.strict_by_default and (max_retries or schema.model_class is not None):
        strict = False  # the reply is validated here, so what can't be enforced need not be
    options = _call_options(schema, resolved, strict)
    if "tools" in options and _supports_single_call(provider, model, options, text_tool_calls):
        options["parallel_tool_calls"] = False
    # Where decoding is constrained, the model sees nothing of the schema unless it is in the prompt.
    in_prompt = resolved in ("prompt", "json_mode") or (resolved == "json_schema" and requested == "auto")
    return StructuredOutputPlan(
        schema=schema,
        method=resolved,
        options=options,
        instructions=schema_instructions(spec) if in_prompt and spec is not None else "",
        max_retries=max_retries,
    )


def best_method(provider: Provider, model: str) -> Literal["json_schema", "function_calling", "prompt"]:
    """Return the method that most reliably yields JSON that fits a schema.

    It is `json_schema` if the server constrains decoding, else `function_calling` if a tool call can be forced, else
    `prompt`: the schema is part of the prompt.
    """
    info = provider.model_info(model)
    if _enforces_schema(provider, model) and "json_schema" in info.response_formats:
        return "json_schema"
    if info.tools and provider.supports("tools") and provider.supports("tool_choice"):
        return "function_calling"
    return "prompt"


def _enforces_schema(provider: Provider, model: str) -> bool:
    """Tell whether decoding is constrained; a model missing from the record counts as those that are in it.

    The server does it, whatever the weights, and local files may have any name.
    """
    info = provider.model_info(model)
    like = (info,) if info in provider.models else provider.models
    return provider.supports("response_format") and all(one.enforces_schema for one in like)


def _call_options(schema: OutputSchema, method: ResolvedMethod, strict: bool | None) -> dict[str, Any]:
    enforced = {} if strict is None else {"strict": strict}
    spec = dict(schema.json_schema or {})
    match method:
        case "json_schema":
            details = {"name": schema.name, "schema": spec, **enforced}
            return {"response_format": {"type": "json_schema", "json_schema": details}}
        case "function_calling":
            description = str(spec.get("description") or "")
            function = {"name": schema.name, "description": description, "parameters": spec, **enforced}
            # "required" and not the name: it is the only tool, and some servers know only the modes (LM Studio).
            return {"tools": [{"type": "function", "function": function}], "tool_choice": "required"}
        case "json_mode":
            return {"response_format": {"type": "json_object"}}
        case "prompt":
            return {}
        case _:
            assert_never(method)


def _supports_single_call(
    provider: Provider, model: str, options: Mapping[str, Any], text_tool_calls: bool
) -> bool:
    tools = tuple(map(parse_tool, options["tools"]))
    request = ChatRequest(
        provider.model_info(model).id, (), tools, ToolChoice("required"), text_tool_calls=text_tool_calls
    )
    return provider.supports("parallel_tool_calls") or emulates_parallel_tool_calls(provider, request)
