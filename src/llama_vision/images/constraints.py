"""Which images a provider accepts, as facts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageConstraints:
    """Which images a provider accepts.

    Attributes:
        media_types: The encodings it decodes.
        decoded_by_backend: Whether the backend decodes files itself, at full size: they are passed on as they are,
            and what has to be scaled is encoded without loss.
        accepts_urls: Whether it fetches http(s) URLs itself.
        max_bytes: The maximum size of an encoded image; None where no limit is documented.
        max_base64_chars: The exclusive limit of one image's base64 text, in characters; None where none is documented.
        max_total_base64_chars: The same for all images of a request together.
        max_count: The maximum number of images in one request; None where no limit is documented.
        count_per_message: Whether `max_count` is that of each message, and not of the request.
        min_side: The minimum of both sides in pixels; 1 where no limit is documented.
        max_side: The maximum of both sides in pixels; None where no limit is documented.
        allows_system_message: Whether a system message may stand beside an image; else its text moves to the user's
            first message.
        alternative: Where images can't be sent at all (`max_count=0`), what to do.
    """

    media_types: frozenset[str] = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})
    decoded_by_backend: bool = False
    accepts_urls: bool = True
    max_bytes: int | None = None
    max_base64_chars: int | None = None
    max_total_base64_chars: int | None = None
    max_count: int | None = None
    count_per_message: bool = False
    min_side: int = 1
    max_side: int | None = None
    allows_system_message: bool = True
    alternative: str = ""
