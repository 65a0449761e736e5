"""Puts a request into the order a provider's model reads."""

from dataclasses import replace

from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.messages import Image, Message, Text
from llama_vision.core.request import ChatRequest
from llama_vision.providers.provider import Provider


def reorder_messages(provider: Provider, request: ChatRequest) -> ChatRequest:
    """Reorder what the model would not see, or the provider would refuse.

    Images come before the words that ask about them: words before an image can't attend to it (Meta's prompt format),
    and some hosts then refuse. The system's words go into the first user turn where an image forbids a system message.

    Args:
        provider: Whose rules.
        request: As the user made it; it is not changed.

    Returns:
        A request that says the same.

    Raises:
        UnsupportedInputError: The system's words have no user turn to go into, or are not words alone.

    """
    if not request.images():
        return request
    messages = tuple(images_first(message) for message in request.messages)
    if not provider.image_rules.allows_system_message:
        messages = _fold_system_prompt(messages)
    return replace(request, messages=messages)


def images_first(message: Message) -> Message:
    """Put the images of a turn before its words, unless words follow them: those may be labels that belong to them."""
    if message.role != "user" or not message.parts or not isinstance(message.parts[-1], Image):
        return message
    return replace(message, parts=tuple(sorted(message.parts, key=lambda part: not isinstance(part, Image))))


def _fold_system_prompt(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    systems = [message for message in messages if message.role == "system"]
    for part in (part for message in systems for part in message.parts):
        if not isinstance(part, Text):
            raise UnsupportedInputError(f"A system message can't hold a {type(part).__name__}.")
    words = "\n\n".join(filter(None, (message.text.strip() for message in systems)))
    others = [message for message in messages if message.role != "system"]
    if not words:
        return tuple(others)
    first = next((place for place, message in enumerate(others) if message.role == "user"), None)
    if first is None:
        raise UnsupportedInputError("A system message beside an image needs a user message to go into.")
    others[first] = prepend_text(others[first], words)
    return tuple(others)


def prepend_text(message: Message, words: str) -> Message:
    """Put words before the first words of a turn, and after the images that stand before those."""
    place = next(
        (place for place, part in enumerate(message.parts) if not isinstance(part, Image)), len(message.parts)
    )
    before, after = message.parts[:place], message.parts[place:]
    if after and isinstance(after[0], Text):
        return replace(message, parts=(*before, Text(f"{words}\n\n{after[0].text}"), *after[1:]))
    return replace(message, parts=(*before, Text(words), *after))
