"""Arguments under the names that other classes have for them: what means the same is taken, of the rest an error says what to write here."""

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic_core import PydanticCustomError

from llama_vision.core.call_options import MODEL_OPTIONS, SYNONYMS
from llama_vision.core.json_types import as_mapping

_LOCAL = "For a model on this machine it is local_settings={'device': ..., 'device_map': ..., 'dtype': ..., 'quantization': ...}."
_SERVER = "It is set where the server runs (Ollama: OLLAMA_CONTEXT_LENGTH, OLLAMA_KEEP_ALIVE)."
_AZURE = "It is provider='azure', base_url='https://RESOURCE.openai.azure.com/openai/v1', model='DEPLOYMENT'."
_SCHEMA = (
    "For JSON use with_structured_output(schema) in LangChain, as_structured_llm(cls) in LlamaIndex, or "
    "response_format={'type': 'json_object'} in a call."
)
_TOOLS = "Tools are offered in a call: bind_tools(tools) in LangChain, chat_with_tools(tools) in LlamaIndex."
_LOGPROBS = "Replies hold no log probabilities here."

_REMEDIES: Mapping[str, str] = {
    "n": "A call has one reply: for several use batch(), or call again.",
    **dict.fromkeys(("logprobs", "top_logprobs"), _LOGPROBS),
    **dict.fromkeys(
        ("image_detail", "detail"),
        "Images are scaled to what the model sees; image_max_pixels makes them smaller.",
    ),
    **dict.fromkeys(("format", "response_format", "json_mode"), _SCHEMA),
    **dict.fromkeys(("tools", "tool_choice", "parallel_tool_calls"), _TOOLS),
    "strict": "Schemas are strict by a call: with_structured_output(schema, strict=True) and bind_tools(tools, strict=True) in "
    "LangChain, structured_output='json_schema' in LlamaIndex.",
    "is_chat_model": "It always is one.",
    "reuse_client": "Connections are shared, by threads and event loops too; http_client passes a client of your own.",
    **dict.fromkeys(("headers", "extra_headers"), "It is default_headers."),
    **dict.fromkeys(
        ("organization", "openai_organization"), "It is default_headers={'OpenAI-Organization': ...}."
    ),
    **dict.fromkeys(("azure_endpoint", "azure_deployment", "deployment_name", "engine"), _AZURE),
    **dict.fromkeys(
        ("api_version", "openai_api_version", "default_query"), "It is a query at the end of the address."
    ),
    **dict.fromkeys(("num_ctx", "keep_alive", "num_gpu", "num_thread"), _SERVER),
    **dict.fromkeys(("device", "device_map", "dtype", "torch_dtype", "quantization_config"), _LOCAL),
    **dict.fromkeys(("tokenizer", "tokenizer_name"), "The tokenizer is the model's own."),
    "context_window": "It is profile={'max_input_tokens': ...}.",  # LlamaIndex has a field of this name
    "system_prompt": "Put a SystemMessage before the conversation.",  # as above
    "use_responses_api": "Only chat completions are used.",
    "streaming": "Call stream_chat() or stream_complete().",  # LangChain has a field of this name
}
"""What to write here for an argument of another class that nothing here is called by."""

_DEFAULTS: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "image_detail": ("auto",),
    "detail": ("auto",),
    "format": ("",),
    "is_chat_model": (True,),
    "reuse_client": (True,),
    **dict.fromkeys(("logprobs", "strict", "use_responses_api", "streaming"), (False,)),
}
"""Values that say what is so here anyway; so does None, of whatever name above."""


def resolve_arguments(
    arguments: Mapping[str, Any], known: Collection[str], options_field: str
) -> dict[str, Any]:
    """Return the arguments of a model by the names of its own.

    Args:
        arguments: As they were passed. `model_kwargs` is laid open: what is a field goes there, the rest into `options_field`.
        known: The names of the fields, and their aliases.
        options_field: The field with further options of each call. What is an option of a call and no field goes there.

    Returns:
        The arguments.

    Raises:
        PydanticCustomError: Two spellings of one argument say different things, or there is no such argument.
    """
    resolved = {name: value for name, value in arguments.items() if name in known}
    options: dict[str, Any] = {}
    unknown: list[str] = []
    for name, value, nested in _others(arguments, known):
        target = _target(name, known)
        if target in known:
            _put(resolved, target, name, value)
        elif nested or target in MODEL_OPTIONS:
            _put(options, target, name, value)
        elif not (name in _REMEDIES and (value is None or value in _DEFAULTS.get(name, ()))):
            unknown.append(name)
    if unknown:
        raise PydanticCustomError(
            "unknown_argument",
            "{text}",
            {"text": " ".join(_explain(name, known, options_field) for name in unknown)},
        )
    if options:
        before = as_mapping(resolved.get(options_field))
        for name, value in before.items():
            _put(options, name, options_field, value)
        resolved[options_field] = options
    return resolved


def _others(arguments: Mapping[str, Any], known: Collection[str]) -> Iterator[tuple[str, Any, bool]]:
    """Yield what is no field, each with whether it stood in `model_kwargs`."""
    for name, value in arguments.items():
        if name in known or (value is None and name in _ALL_SYNONYMS):
            continue
        if name == "model_kwargs":
            yield from ((inner, each, True) for inner, each in as_mapping(value).items())
        else:
            yield name, value, False


_ALL_SYNONYMS = {name for names in SYNONYMS.values() for name in names}


def _target(name: str, known: Collection[str]) -> str:
    """Find the name here; of several that are here, such as `base_url` and `api_base`, the one that is known."""
    targets = [target for target, names in SYNONYMS.items() if name in names]
    return next((target for target in targets if target in known), targets[0] if targets else name)


def _put(arguments: dict[str, Any], target: str, name: str, value: Any) -> None:
    if target in arguments and arguments[target] != value:
        raise PydanticCustomError(
            "contradiction",
            "{target} and {name} are the same here, and say different things: leave one out.",
            {"target": target, "name": name},
        )
    arguments[target] = value


def _explain(name: str, known: Collection[str], options_field: str) -> str:
    remedy = _REMEDIES.get(name)
    if remedy is None:
        close = difflib.get_close_matches(name, known, n=1)
        own = f"Fields of the provider's own go into {options_field}={{{name!r}: ...}}."
        remedy = f"Did you mean {close[0]}?" if close else own
    return f"There is no argument {name}. {remedy}"
