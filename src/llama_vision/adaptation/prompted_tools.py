"""Prompt-based tool calling, for providers without fields for tools or tool_choice.

A call is the JSON that Meta documents for Llama 3 (https://www.llama.com/docs/model-cards-and-prompt-formats/), and the
definitions stand before the first text of the user, as in the chat template published with the 11B.
"""

import json
from collections.abc import Sequence
from dataclasses import replace

from llama_vision.adaptation.message_order import images_first, prepend_text
from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.messages import Image, Message, Part, Role, Text, ToolCall, ToolResult
from llama_vision.core.request import ChatRequest, Tool, ToolChoice
from llama_vision.providers.provider import Provider

_PARTS_BY_ROLE: dict[Role, tuple[type[Part], ...]] = {
    "system": (Text,),
    "user": (Text, Image),
    "assistant": (Text, ToolCall),
    "tool": (ToolResult,),
}
"""The parts that messages of each role may hold."""

_AT_MOST_ONE_CALL = "Call at most one function."
_SEVERAL_CALLS = "Several calls stand one after the other, separated by a semicolon."


def emulate_tools(provider: Provider, request: ChatRequest) -> ChatRequest:
    """Render into the prompt what of a request's tools the provider has no field for.

    Without support for tools, their definitions go before the first text of the user, and calls and results of earlier
    turns become text. With support for tools but not for tool_choice, a forced call becomes an instruction.

    Raises:
        UnsupportedInputError: A part is not allowed in its message's role, a definition is no JSON, or there is no user
            message to put tools into.
    """
    if not can_emulate_tools(provider, request):
        return request
    if not supports_tools(provider, request):
        return _emulate_all(request)
    if request.tools and request.tool_choice is not None and not provider.supports("tool_choice"):
        return _emulate_tool_choice(provider, request, request.tool_choice)
    return request


def can_emulate_tools(provider: Provider, request: ChatRequest) -> bool:
    """Tell whether tools may be rendered into the prompt here. The local model's chat template does so itself."""
    return request.text_tool_calls and provider.dialect is not None


def supports_tools(provider: Provider, request: ChatRequest) -> bool:
    """Tell whether the model has native support for tools."""
    return provider.supports("tools") and provider.model_info(request.model).tools


def emulates_parallel_tool_calls(provider: Provider, request: ChatRequest) -> bool:
    """Tell whether `parallel_tool_calls` becomes an instruction, so that the provider needs no field for it."""
    if not request.tools or not can_emulate_tools(provider, request):
        return False
    return not supports_tools(provider, request) or (
        _is_forced(request.tool_choice) and not provider.supports("tool_choice")
    )


def _is_forced(choice: ToolChoice | None) -> bool:
    return choice is not None and choice.mode in ("required", "named")


def _emulate_all(request: ChatRequest) -> ChatRequest:
    parts = [part for message in request.messages for part in message.parts]
    if not request.tools and not any(isinstance(part, ToolCall | ToolResult) for part in parts):
        return request
    messages = _render_history(request.messages)
    choice = request.tool_choice
    if tools := _callable_tools(request.tools, choice):
        messages = _insert_definitions(messages, _tool_instructions(tools, request.parallel_tool_calls))
    if choice is not None and _is_forced(choice):
        messages = _append_instruction(messages, _forced_call_instruction(choice))
    return replace(request, messages=tuple(messages), tools=(), tool_choice=None, parallel_tool_calls=None)


def _emulate_tool_choice(provider: Provider, request: ChatRequest, choice: ToolChoice) -> ChatRequest:
    chosen = replace(request, tools=_callable_tools(request.tools, choice), tool_choice=None)
    if not _is_forced(choice):
        return chosen
    instruction = _forced_call_instruction(choice)
    if request.parallel_tool_calls is not None and not provider.supports("parallel_tool_calls"):
        instruction += f" {_parallel_instruction(request.parallel_tool_calls)}"
        chosen = replace(chosen, parallel_tool_calls=None)
    return replace(chosen, messages=tuple(_append_instruction(request.messages, instruction)))


def _callable_tools(tools: tuple[Tool, ...], choice: ToolChoice | None) -> tuple[Tool, ...]:
    """Filter the tools that may be called."""
    match choice.mode if choice else "auto":
        case "none":
            return ()
        case "named":
            return tuple(tool for tool in tools if choice and tool.name == choice.name)
        case _:
            return tools


def _tool_instructions(tools: Sequence[Tool], parallel: bool | None) -> str:
    definitions = "\n\n".join(map(_definition, tools))
    return (
        f"You can call functions. They are defined as follows.\n\n{definitions}\n\n"
        "Where you need one, reply with nothing but the call, as JSON in the form "
        '{"name": function name, "parameters": {argument: value}}. Give the values themselves, of the types that the '
        f"definition wants. {_parallel_instruction(parallel)} You are told next what was returned. "
        "Where you need none, answer in plain words."
    )


def _definition(tool: Tool) -> str:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    try:
        return json.dumps(
            {"type": "function", "function": function}, indent=4, ensure_ascii=False, allow_nan=False
        )
    except (TypeError, ValueError) as error:
        raise UnsupportedInputError(f"The tool {tool.name} can't be written as JSON: {error}.") from error


def _parallel_instruction(parallel: bool | None) -> str:
    return _AT_MOST_ONE_CALL if parallel is False else _SEVERAL_CALLS


def _forced_call_instruction(choice: ToolChoice) -> str:
    named = choice.mode == "named"
    function = f"the function {choice.name}" if named else "one of the functions"
    name = _json(choice.name) if named else "function name"
    return (
        f"Reply to this with a call of {function} and with nothing else, as JSON in the form "
        f'{{"name": {name}, "parameters": {{argument: value}}}}.'
    )


def _insert_definitions(messages: list[Message], definitions: str) -> list[Message]:
    for index, message in enumerate(messages):
        if message.role == "user":
            return [*messages[:index], prepend_text(message, definitions), *messages[index + 1 :]]
    raise UnsupportedInputError("Tools that are put into words need a user message to go into.")


def _append_instruction(messages: Sequence[Message], instruction: str) -> list[Message]:
    """Put an instruction at the end of the prompt."""
    *before, last = messages
    if last.role != "user":
        return [*messages, Message("user", (Text(instruction),))]
    parts = images_first(last).parts  # now, because with text behind it no image comes last
    if parts and isinstance(parts[-1], Text):
        return [*before, replace(last, parts=(*parts[:-1], Text(f"{parts[-1].text}\n\n{instruction}")))]
    return [*before, replace(last, parts=(*parts, Text(instruction)))]


def _render_history(messages: Sequence[Message]) -> list[Message]:
    """Turn calls and results into text. User messages that become neighbors are merged, as some templates want roles to alternate."""
    turns: list[Message] = []
    calls: dict[str | None, str] = {}  # so far: an id may come again in a later turn
    ends_with_result = False  # whether the last turn ends with a tool's result
    for position, message in enumerate(messages):
        _check_part_roles(message, position)
        calls |= _names(message)
        turn, is_result = _render_message(message, calls), message.role == "tool"
        if turn is None:
            continue
        if turns and (ends_with_result or is_result) and _can_merge(turns[-1], turn):
            turns[-1] = replace(turn, parts=(*images_first(turns[-1]).parts, *images_first(turn).parts))
        else:
            turns.append(turn)
        ends_with_result = is_result
    return turns


def _check_part_roles(message: Message, position: int) -> None:
    for part in message.parts:
        if not isinstance(part, _PARTS_BY_ROLE[message.role]):
            raise UnsupportedInputError(
                f"Message {position} ({message.role}) can't hold {_NAMES[type(part)]}. Calls belong to an assistant "
                "message, their results to a tool message, images to a user message or a result."
            )


_NAMES: dict[type[Part], str] = {
    Text: "text",
    Image: "an image",
    ToolCall: "a tool call",
    ToolResult: "a tool's result",
}


def _can_merge(first: Message, second: Message) -> bool:
    """Tell whether two messages may become one. If it ended with an image, all of its images would move to the front."""
    last = images_first(second).parts[-1:]
    same_speaker = first.role == second.role == "user" and first.name == second.name
    return same_speaker and not any(isinstance(part, Image) for part in last)


def _names(message: Message) -> dict[str | None, str]:
    """Describe the calls of a message, by their ids, with a number where there are several."""
    calls = [part for part in message.parts if isinstance(part, ToolCall)]
    if len(calls) == 1:
        return {calls[0].id: f"The call of {calls[0].name}"}
    return {call.id: f"Call {number}, of {call.name}," for number, call in enumerate(calls, start=1)}


def _render_message(message: Message, calls: dict[str | None, str]) -> Message | None:
    if message.role == "tool":
        parts = [
            rendered
            for part in message.parts
            if isinstance(part, ToolResult)
            for rendered in _render_tool_result(
                part, calls.get(part.call_id) or f"The call of {message.name or part.call_id}"
            )
        ]
        return Message("user", tuple(parts)) if parts else None
    calls_text = [_render_call(part) for part in message.parts if isinstance(part, ToolCall)]
    if not calls_text:
        return message
    others = [part for part in message.parts if not isinstance(part, ToolCall)]
    return replace(message, parts=(*others, Text("; ".join(calls_text))))


def _render_call(call: ToolCall) -> str:
    arguments = call.arguments if call.arguments.strip() else "{}"
    return f'{{"name": {_json(call.name)}, "parameters": {arguments}}}'


def _render_tool_result(result: ToolResult, call: str) -> list[Part]:
    """Render a result: its text as JSON, so that it is delimited, after its images, as text follows images."""
    images = [part for part in result.parts if isinstance(part, Image)]
    text = result.text
    returned: list[str] = []
    if images:
        returned.append(
            "the image before this" if len(images) == 1 else f"the {len(images)} images before this"
        )
    if text or not images:
        returned.append(_json(text))
    return [*images, Text(f"{call} returned {' and '.join(returned)}")]


def _json(text: str | None) -> str:
    return json.dumps(text, ensure_ascii=False)
