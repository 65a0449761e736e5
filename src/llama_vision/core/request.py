"""What is asked of a model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llama_vision.core.messages import Image, Message, ToolResult

DEFAULT_MAX_TOKENS = 1024
"""Always sent: left out, Cloudflare cuts at 256 tokens and AI/ML API at 512, without a word."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call.

    Attributes:
        name: The function's name.
        description: What it does, for the model to read.
        parameters: JSON schema of its arguments.
        strict: Ask the provider to keep to the schema; None leaves the choice to the provider.

    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether the model has to call a tool.

    Attributes:
        mode: `auto` (as it likes), `none`, `required` (some tool), `named` (the one in `name`).
        name: The tool, for `named`.

    """

    mode: Literal["auto", "none", "required", "named"]
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The form the answer has to take.

    Attributes:
        type: `text`, `json_object`, or `json_schema`.
        name: A name for the schema.
        schema: JSON schema, for `json_schema`.
        strict: Ask the provider to keep to the schema exactly.

    """

    type: Literal["text", "json_object", "json_schema"]
    name: str = "answer"
    schema: Mapping[str, Any] | None = None
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are chosen, and how many. None leaves a value to the provider.

    Attributes:
        max_tokens: The most tokens the reply may have.
        temperature: 0 takes the likeliest token; more is more random.
        top_p: Choose among the likeliest tokens that together have this probability (0 to 1).
        top_k: Choose among this many of the likeliest tokens.
        min_p: Leave out tokens less likely than this share of the likeliest (0 to 1).
        seed: The same seed asks for the same choices.
        frequency_penalty: Discourage words by how often they stand already.
        presence_penalty: Discourage words that stand already.
        repetition_penalty: Divide the score of tokens that stand already; 1 does nothing.

    """

    max_tokens: int = DEFAULT_MAX_TOKENS
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question to a model, with all that came before it.

    Attributes:
        model: The provider's own id of the model.
        messages: The conversation, oldest first.
        tools: Functions the model may call.
        tool_choice: Whether it has to; None leaves it to the provider.
        parallel_tool_calls: Whether it may call several at once; None leaves it to the provider.
        response_format: The form of the answer; None is plain text.
        sampling: How tokens are chosen.
        stop: Texts at which the reply ends; they are not part of it.
        stream_usage: Ask for token counts in streams too.
        extra_body: Further fields of the provider's own, sent as they are.
        text_tool_calls: Whether tool calls that the model writes as text are read, and tools put into words where the
            provider takes none.

    """

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    stop: tuple[str, ...] = ()
    stream_usage: bool = True
    extra_body: Mapping[str, Any] = field(default_factory=dict[str, Any])
    text_tool_calls: bool = True

    @property
    def text_parsed_tools(self) -> tuple[Tool, ...]:
        """The tools of which calls are looked for in the words of the reply."""
        forbidden = self.tool_choice is not None and self.tool_choice.mode == "none"
        return self.tools if self.text_tool_calls and not forbidden else ()

    def images(self) -> list[Image]:
        """Collect the images of the conversation.

        Returns:
            All of them in order, those in tool results included.

        """
        found: list[Image] = []
        for message in self.messages:
            for part in message.parts:
                if isinstance(part, Image):
                    found.append(part)
                elif isinstance(part, ToolResult):
                    found.extend(inner for inner in part.parts if isinstance(inner, Image))
        return found
