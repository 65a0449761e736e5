"""From the pieces of a prompt to tokens, and to which of them see which image."""

from collections.abc import Sequence
from dataclasses import dataclass

from llama_vision.backends.local.chat_template import IMAGE_TOKEN, PromptPart, SpecialToken
from llama_vision.backends.local.model_loader import LoadedModel
from llama_vision.backends.local.vision_encoder import ImageInput, VisionEncoder
from llama_vision.core.errors import LocalModelError
from llama_vision.core.messages import Image


@dataclass(frozen=True, slots=True)
class ImageSpan:
    """Which words see an image.

    Attributes:
        image: The image.
        start: The first token that sees it, which is its own.
        end: The first that does not any more.

    """

    image: ImageInput
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """A prompt, as the engine takes it.

    Attributes:
        token_ids: Its tokens.
        image_spans: Its images, in order.

    """

    token_ids: list[int]
    image_spans: tuple[ImageSpan, ...]

    @property
    def output_image_spans(self) -> tuple[ImageSpan, ...]:
        """The images that the answer sees."""
        return tuple(glimpse for glimpse in self.image_spans if glimpse.end == len(self.token_ids))

    @property
    def cache_key(self) -> list[int | bytes]:
        """Its tokens, with the key of each image in the place of its own: what says whether two prompts are the same."""
        words: list[int | bytes] = [*self.token_ids]
        for glimpse in self.image_spans:
            words[glimpse.start] = glimpse.image.key
        return words


def tokenize_prompt(
    loaded: LoadedModel, vision: VisionEncoder, pieces: Sequence[PromptPart]
) -> TokenizedPrompt:
    """Turn a prompt into tokens and images.

    Args:
        loaded: Whose tokenizer to use.
        vision: Makes the images ready.
        pieces: From `prompt.render`.

    Returns:
        The prompt.

    Raises:
        ImageError: An image can't be decoded.
        LocalModelError: The model is no Llama 3.2 Vision.

    """
    ids: list[int] = []
    images: list[Image] = []
    places: list[int] = []
    for piece in pieces:
        if isinstance(piece, Image):
            images.append(piece)
            places.append(len(ids))
        ids += _token_ids(loaded, piece)
    inputs = [vision.preprocess(image, number) for number, image in enumerate(images, start=1)]
    spans = zip(inputs, places, _image_span_ends(places, len(ids)), strict=True)
    return TokenizedPrompt(ids, tuple(ImageSpan(*span) for span in spans))


def _image_span_ends(places: Sequence[int], length: int) -> list[int]:
    """Find where each image is out of sight: at the next one, but neighbours are seen together (as transformers does)."""
    ends: list[int] = []
    after, end = length, length
    for place in reversed(places):
        end = end if place == after - 1 else after
        ends.insert(0, end)
        after = place
    return ends


def _token_ids(loaded: LoadedModel, piece: PromptPart) -> list[int]:
    if isinstance(piece, str):
        return loaded.tokenizer.encode(piece, add_special_tokens=False).ids
    control = piece if isinstance(piece, SpecialToken) else IMAGE_TOKEN
    token_id = loaded.tokenizer.token_to_id(control.token)
    if token_id is None:
        raise LocalModelError(f"The model's tokenizer has no {control.token}: it is no Llama 3.2 Vision.")
    return [token_id]
