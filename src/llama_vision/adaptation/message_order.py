"""Orders the messages and parts of a request as a provider's model reads them."""

from dataclasses import replace

from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.messages import Image, Message, Text
from llama_vision.core.request import ChatRequest
from llama_vision.providers.provider import Provider


def reorder_messages(provider: Provider, request: ChatRequest) -> ChatRequest:
    """Move images before the text about them, and the system prompt where it is not allowed beside an image.

    Text before an image can't attend to it (Meta's prompt format), and some hosts refuse that order. Where an image
    forbids a system message, the system prompt is folded into the first user message.

    Raises:
        UnsupportedInputError: The system prompt has no user message to go into, or is not text alone.
    """
    if not request.images():
        return request
    messages = tuple(images_first(message) for message in request.messages)
    if not provider.image_rules.allows_system_message:
        messages = _fold_system_prompt(messages)
    return replace(request, messages=messages)


def images_first(message: Message) -> Message:
    """Put the images of a user message before its text, unless text follows them: it may be labels that belong to them."""
    if message.role != "user" or not message.parts or not isinstance(message.parts[-1], Image):
        return message
    return replace(message, parts=tuple(sorted(message.parts, key=lambda part: not isinstance(part, Image))))


def _fold_system_prompt(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    systems = [message for message in messages if message.role == "system"]
    for part in (part for message in systems for part in message.parts):
        if not isinstance(part, Text):
            raise UnsupportedInputError(f"A system message can't hold a {type(part).__name__}.")
    text = "\n\n".join(filter(None, (message.text.strip() for message in systems)))
    others = [message for message in messages if message.role != "system"]
    if not text:
        return tuple(others)
    first = next((index for index, message in enumerate(others) if message.role == "user"), None)
    if first is None:
        raise UnsupportedInputError("A system message beside an image needs a user message to go into.")
    others[first] = prepend_text(others[first], text)
    return tuple(others)


def prepend_text(message: Message, text: str) -> Message:
    """Put text before the first text of a message, and after the images before it."""
    index = next(
        (index for index, part in enumerate(message.parts) if not isinstance(part, Image)), len(message.parts)
    )
    before, after = message.parts[:index], message.parts[index:]
    if after and isinstance(after[0], Text):
        return replace(message, parts=(*before, Text(f"{text}\n\n{after[0].text}"), *after[1:]))
    return replace(message, parts=(*before, Text(text), *after))
