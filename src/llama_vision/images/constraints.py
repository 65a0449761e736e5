"""Which images a provider takes, as facts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageConstraints:
    """Which images a provider takes.

    Attributes:
        media_types: The encodings it reads.
        accepts_urls: Whether it fetches http(s) addresses itself.
        max_bytes: The largest encoded image; None where no limit is documented.
        max_base64_chars: What the base64 text of one image has to stay below, in characters; None where no such limit
            is documented.
        max_total_base64_chars: The same for all images of a request together.
        max_count: The most images of one request; None where no limit is documented.
        min_side: The shortest side in pixels; 1 where no limit is documented.
        max_side: The longest side in pixels; None where no limit is documented.
        allows_system_message: Whether a system message may stand beside an image; its words go into the user's turn otherwise.
        alternative: Where images can't be sent at all (`max_count=0`), what to do.

    """

    media_types: frozenset[str] = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})
    accepts_urls: bool = True
    max_bytes: int | None = None
    max_base64_chars: int | None = None
    max_total_base64_chars: int | None = None
    max_count: int | None = None
    min_side: int = 1
    max_side: int | None = None
    allows_system_message: bool = True
    alternative: str = ""
