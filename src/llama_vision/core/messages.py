"""Messages and their parts."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Text:
    """A text part."""

    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image: either its encoded bytes, or a URL from which the provider downloads it.

    Attributes:
        data: The encoded file (PNG, JPEG, ...), or None where there is a `url`.
        media_type: The MIME type of `data`, from its first bytes, such as `image/png`.
        url: An http(s) URL, or None where there is `data`.
        detail: The level of detail (`low`, `high`, `auto`), for providers that know it.
    """

    data: bytes | None = field(default=None, repr=False)
    media_type: str | None = None
    url: str | None = None
    detail: str | None = None

    def __post_init__(self) -> None:
        if (self.data is None) == (self.url is None):
            raise ValueError("An Image has either data or a url, and not both.")

    def __repr__(self) -> str:
        """Tell how many bytes there are in place of the bytes, and nothing of what is None."""
        data = None if self.data is None else f"<{len(self.data):,} bytes>"
        fields = {name: getattr(self, name) for name in ("media_type", "url", "detail")}
        known = [f"{name}={value!r}" for name, value in fields.items() if value is not None]
        return f"Image({', '.join(filter(None, [data, *known]))})"

    def _repr_png_(self) -> bytes | None:  # IPython shows the image
        return self.data if self.media_type == "image/png" else None

    def _repr_jpeg_(self) -> bytes | None:
        return self.data if self.media_type == "image/jpeg" else None


@dataclass(frozen=True, slots=True)
class Document:
    """A PDF, or a TIFF of several pages: the model is shown its pages as images, with their text layer.

    Attributes:
        data: The file, or None where there is a `url`.
        url: An http(s) URL, from which it is downloaded here, or None where there is `data`.
        name: The file's name, by which answers can cite it.
        pages: Which pages, from 1, such as `2-4`, `1,3` or `5-`; None for all.
        password: That of an encrypted PDF.
    """

    data: bytes | None = field(default=None, repr=False)
    url: str | None = None
    name: str | None = None
    pages: str | None = None
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.data is None) == (self.url is None):
            raise ValueError("A Document has either data or a url, and not both.")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call of the model.

    Attributes:
        id: The tool's result refers to it; None where the provider gave none.
        name: The tool's name.
        arguments: JSON text, just as the model wrote it.
    """

    id: str | None
    name: str
    arguments: str

    def parsed(self) -> dict[str, Any]:
        """Parse the arguments.

        Returns:
            The arguments by name; empty where the model wrote none.

        Raises:
            ValueError: The text is not a JSON object, for instance because the reply was cut off, or is nested too deeply.
        """
        if not self.arguments.strip():
            return {}
        try:
            value: object = json.loads(self.arguments, strict=False)  # models write line breaks into strings
        except RecursionError as error:
            raise ValueError(f"The arguments of {self.name} are nested too deeply.") from error
        if not isinstance(value, dict):
            raise ValueError(  # noqa: TRY004 - json's own error for bad text is a ValueError too
                f"The arguments of {self.name} are not a JSON object: {self.arguments[:200]}"
            )
        return cast("dict[str, Any]", value)


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of a tool call.

    Attributes:
        call_id: The id of the `ToolCall`.
        parts: Texts, images and documents.
    """

    call_id: str
    parts: tuple[Text | Image | Document, ...]

    @property
    def text(self) -> str:
        """The text parts, each on lines of its own."""
        return "\n".join(part.text for part in self.parts if isinstance(part, Text))


Part: TypeAlias = Text | Image | Document | ToolCall | ToolResult


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: Who wrote it.
        parts: The content, in order. Images and documents belong to `user` and inside a `ToolResult`; tool calls to
            `assistant`; tool results to `tool`.
        name: The name of the participant, where several share a role.
    """

    role: Role
    parts: tuple[Part, ...]
    name: str | None = None

    def images(self) -> list[Image]:
        """Collect the images of the turn.

        Returns:
            All of them in order, those in tool results included.
        """
        found: list[Image] = []
        for part in self.parts:
            if isinstance(part, Image):
                found.append(part)
            elif isinstance(part, ToolResult):
                found.extend(inner for inner in part.parts if isinstance(inner, Image))
        return found

    @property
    def text(self) -> str:
        """All text parts, joined without anything between them."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


def single_turn_messages(
    text: str, images: Iterable[Image | Document] = (), system: str | None = None
) -> tuple[Message, ...]:
    """Make a user message, in which images come first: text before an image can't attend to it.

    A system message precedes it where `system` is not empty.
    """
    user = Message("user", (*images, Text(text)))
    return (Message("system", (Text(system),)), user) if system else (user,)
