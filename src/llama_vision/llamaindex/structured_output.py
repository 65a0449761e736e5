"""An object of a pydantic class out of an answer: how it is asked for, how far it has come, and what is wrong with it."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar, assert_never

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ContentBlock,
    MessageRole,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.program.utils import create_flexible_model
from pydantic import BaseModel, ValidationError

from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.json_types import as_mapping
from llama_vision.llamaindex.errors import StructuredOutputError
from llama_vision.llamaindex.tools import parse_partial_object
from llama_vision.providers.provider import Provider
from llama_vision.structured.extract import extract_json, retry_message, schema_instructions
from llama_vision.structured.method import StructuredMethod, best_method

_Model = TypeVar("_Model", bound=BaseModel)
Method: TypeAlias = Literal["json_schema", "function_calling", "json_mode", "prompt"]

_SHOWN = 200  # characters of an answer in an error's text
_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_-]")  # OpenAI's rule for the names of tools and schemas
_MOST_IN_A_NAME = 64
_PROGRAM_OPTIONS = frozenset({"tool_required", "tool_choice", "allow_parallel_tool_calls"})
"""Arguments for the model that core's programs leave out too: they force the tool in any case."""


@dataclass(frozen=True, slots=True)
class StructuredCall:
    """How an answer of a given form is asked for.

    Attributes:
        options: Arguments for `chat`.
        instructions: What to add to the prompt; empty where the options say it all.

    """

    options: Mapping[str, Any]
    instructions: str = ""


def choose_method(
    chosen: StructuredMethod, provider: Provider, model: str, output_cls: type[BaseModel]
) -> Method:
    """Choose how to ask.

    Args:
        chosen: What the user wants.
        provider: Who is asked.
        model: Our name for the model, or the provider's id.
        output_cls: What is wanted.

    Returns:
        The method; for `auto` the surest one.

    """
    if chosen != "auto":
        return chosen
    surest = best_method(provider, model)
    if surest == "function_calling" and output_cls.model_json_schema().get("type") != "object":
        return (
            "prompt"  # a list, or a class that contains itself: the arguments of a tool have to be an object
        )
    return surest


def structured_call(method: Method, output_cls: type[BaseModel]) -> StructuredCall:
    """Write down how an object is asked for.

    Args:
        method: The way to ask.
        output_cls: What is wanted.

    Returns:
        What to add to a call.

    """
    schema = output_cls.model_json_schema()
    name = _NOT_IN_A_NAME.sub("_", schema.get("title") or output_cls.__name__)[:_MOST_IN_A_NAME]
    match method:
        case "json_schema":
            spec = {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}
            return StructuredCall({"response_format": spec})
        case "function_calling":
            function = {
                "name": name,
                "description": schema.get("description", ""),
                "parameters": schema,
            }
            # "required" and not the name: it is the only tool, and some servers know only the words (LM Studio).
            return StructuredCall(
                {"tools": [{"type": "function", "function": function}], "tool_choice": "required"}
            )
        case "json_mode":
            return StructuredCall({"response_format": {"type": "json_object"}}, schema_instructions(schema))
        case "prompt":
            return StructuredCall({}, schema_instructions(schema))
        case _:
            assert_never(method)


class StructuredOutputSession(Generic[_Model]):
    """An object that is being asked for, until an answer fits or there is no use in asking again.

    It does no I/O: `call` says what to ask, and `read` takes the answer.
    """

    def __init__(
        self,
        output_cls: type[_Model],
        form: StructuredCall,
        messages: Sequence[ChatMessage],
        options: Mapping[str, Any],
        *,
        reasks: int,
    ) -> None:
        """Begin to ask.

        Args:
            output_cls: What is wanted.
            form: How it is asked for.
            messages: The prompt; it is not changed.
            options: Further arguments for `chat`.
            reasks: How often an answer that doesn't fit is asked for again.

        Raises:
            UnsupportedInputError: The options say something that the form of the answer says already.

        """
        if taken := sorted(options.keys() & {"tools", "response_format"}):
            raise UnsupportedInputError(
                f"Structured output sets {taken[0]} by itself: leave it out of llm_kwargs, or use chat."
            )
        self._output_cls = output_cls
        self._options = {
            **{name: value for name, value in options.items() if name not in _PROGRAM_OPTIONS},
            **form.options,
        }
        self._messages = _append_instructions(messages, form.instructions)
        self._flexible = create_flexible_model(output_cls)
        self._reasks_left = reasks
        self._num_attempts = 0
        self.text = ""
        """The JSON of the answer, as far as it could be read."""

    @property
    def call(self) -> dict[str, Any]:
        """Arguments for `chat`."""
        return {"messages": self._messages, **self._options}

    def partial(self, response: ChatResponse) -> BaseModel | None:
        """Read an answer that is still on its way.

        Args:
            response: All of it so far.

        Returns:
            The object so far: of the class once it fits, and of a class with the same fields that may hold anything
            until then. None where nothing is new.

        """
        so_far = _object_so_far(_answer(response))
        text = self.text if so_far is None else json.dumps(so_far, ensure_ascii=False)
        if text == self.text:
            return None
        self.text = text
        try:
            return self._output_cls.model_validate_json(text)
        except ValidationError:
            return self._flexible.model_validate_json(text)

    def read(self, response: ChatResponse) -> _Model | None:
        """Read a whole answer.

        Args:
            response: What came of `call`.

        Returns:
            The object; None where it has to be asked for again: `call` then holds the answer and what is wrong with it.

        Raises:
            StructuredOutputError: The answer doesn't fit, and asking again was no use or would be none.

        """
        answer = _answer(response)
        self._num_attempts += 1
        self.text = _strict_json(extract_json(answer))
        try:
            return self._output_cls.model_validate_json(self.text)
        except ValidationError as error:
            problem = format_validation_error(error)
            cut = as_mapping(response.raw).get("finish_reason") == "length"
            if cut or not self._reasks_left:
                raise self._failure(answer, problem, cut=cut, response=response) from error
        self._reasks_left -= 1
        self.text = ""
        said = [ChatMessage(role=MessageRole.ASSISTANT, content=answer)] if answer.strip() else []
        again = ChatMessage(role=MessageRole.USER, content=retry_message(problem))
        self._messages = [*self._messages, *said, again]
        return None

    def _failure(
        self, answer: str, problem: str, *, cut: bool, response: ChatResponse
    ) -> StructuredOutputError:
        name = self._output_cls.__name__
        said = answer if len(answer) <= _SHOWN else f"{answer[:_SHOWN]}..."
        if cut:
            text = (
                f"The reply was cut off at max_tokens before the {name} was complete: raise max_tokens. "
                f"It was: {said!r}"
            )
        else:
            tries = "" if self._num_attempts == 1 else f", asked {self._num_attempts} times"
            text = f"The model gave no {name} that fits{tries}. It was: {said!r}\n{problem}"
        raw = as_mapping(response.raw)
        return StructuredOutputError(text).with_context(raw.get("provider") or "", raw.get("model"))


def _append_instructions(messages: Sequence[ChatMessage], words: str) -> list[ChatMessage]:
    """Add to the user's last words, or after all other messages; what was given is not changed."""
    if not words:
        return list(messages)
    if messages and messages[-1].role is MessageRole.USER:
        last = messages[-1]
        blocks: list[ContentBlock] = [*last.blocks, TextBlock(text=f"\n{words}")]
        return [*messages[:-1], last.model_copy(update={"blocks": blocks})]
    return [*messages, ChatMessage(role=MessageRole.USER, content=words)]


def _answer(response: ChatResponse) -> str:
    """Take the arguments of the first tool call, else the words: some models write there what they should call with."""
    for block in response.message.blocks:
        if isinstance(block, ToolCallBlock):
            arguments = block.tool_kwargs
            return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return response.message.content or ""


def _object_so_far(text: str) -> dict[str, Any] | None:
    start = text.find("{")
    return None if start < 0 else parse_partial_object(text[start:])


def _strict_json(text: str) -> str:
    """Write line breaks in strings as JSON has them; a text that is no JSON stays, for pydantic to say what is wrong."""
    try:
        return json.dumps(json.loads(text, strict=False), ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def format_validation_error(error: ValidationError) -> str:
    """Say what is wrong, one line each, without pydantic's links and without repeating the answer."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "\n".join(f"{'.'.join(map(str, one['loc'])) or 'The answer'}: {one['msg']}" for one in found)
