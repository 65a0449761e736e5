"""The request to a model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llama_vision.core.messages import Image, Message

DEFAULT_MAX_TOKENS = 1024
"""Always sent: left out, Cloudflare cuts at 256 tokens and AI/ML API at 512, and neither says so."""


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
        mode: `auto` (the model decides), `none`, `required` (any tool), `named` (the one in `name`).
        name: The tool, for `named`.
    """

    mode: Literal["auto", "none", "required", "named"]
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The format of the reply.

    Attributes:
        type: `text`, `json_object`, or `json_schema`.
        name: A name for the schema.
        schema: JSON schema, for `json_schema`.
        strict: Ask the provider to keep to the schema; None leaves the choice to the provider.
    """

    type: Literal["text", "json_object", "json_schema"]
    name: str = "answer"
    schema: Mapping[str, Any] | None = None
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Sampling parameters. None leaves a value to the provider. A new parameter is a field here, and nowhere else.

    Attributes:
        max_tokens: Maximum tokens of the reply.
        temperature: Logits are divided by it; 0 is greedy decoding.
        top_p: Nucleus sampling: sample from the most likely tokens that together have this probability (0 to 1).
        top_k: Sample from this many of the most likely tokens.
        min_p: Exclude tokens less likely than this fraction of the most likely one (0 to 1).
        seed: The same seed asks for the same samples.
        frequency_penalty: Penalize tokens by how often they occur in the reply so far.
        presence_penalty: Penalize tokens that occur in the reply so far.
        repetition_penalty: Divide the logits of tokens that occur so far; 1 does nothing.
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
    """One request, with the whole conversation.

    Attributes:
        model: The provider's own id of the model.
        messages: The conversation, oldest first.
        tools: Functions the model may call.
        tool_choice: Whether it has to; None leaves it to the provider.
        parallel_tool_calls: Whether it may call several at once; None leaves it to the provider.
        response_format: The format of the reply; None is plain text.
        sampling: The sampling parameters.
        stop: Stop strings: the reply ends before the first.
        stream_usage: Ask for token counts in streams too.
        extra_body: Further fields of the provider's own, sent as they are.
        text_tool_calls: Whether tool calls that the model writes as text are parsed, and tools described in the prompt where
            the provider takes none.
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
        """The tools whose calls are parsed from the text of the reply."""
        forbidden = self.tool_choice is not None and self.tool_choice.mode == "none"
        return self.tools if self.text_tool_calls and not forbidden else ()

    def images(self) -> list[Image]:
        """Collect the images of the conversation.

        Returns:
            The images in order, those in tool results included.
        """
        return [image for message in self.messages for image in message.images()]
