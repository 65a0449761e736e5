"""An image as the model sees it: upright, on white, no more pixels than it uses, in an encoding the provider takes."""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial

from llama_vision.core.errors import ImageError
from llama_vision.core.messages import Image
from llama_vision.images.cache import PreparedImageCache
from llama_vision.images.constraints import ImageConstraints
from llama_vision.images.decode import DecodedImage, decode
from llama_vision.images.encode import encode, is_graphic
from llama_vision.images.options import EncodingOptions
from llama_vision.images.tiling import fit_within, target_size

__all__ = ["EncodingOptions", "prepare_image", "prepare_images"]

_DEFAULT = EncodingOptions()
_ENCODED = ("image/jpeg", "image/png")  # what is written here, whatever else providers read
_MOST_THREADS = 4  # each may hold a whole decoded image


def prepare_image(image: Image, rules: ImageConstraints, options: EncodingOptions = _DEFAULT) -> Image:
    """Make an image ready to be sent.

    A file that already is what it should be is passed on byte for byte. Every other is encoded anew, without its EXIF
    data. Smaller sides than `rules.min_side` are left to the checks of the request.

    Args:
        image: Any image.
        rules: What the provider takes.
        options: What the user wants.

    Returns:
        The image to send, of at most 1120 x 1120 or 560 x 2240 pixels and the like, with the same `detail`. One that
        is given by its address comes back as it is.

    Raises:
        ImageError: It is no image, is damaged or too large to be decoded, or nothing the provider takes can be made
            of it.

    """
    if image.data is None:
        return image
    decoded = decode(image.data, partial(_target_size, detail=image.detail, rules=rules, options=options))
    most = _max_bytes(rules)
    if _can_pass_through(decoded, rules, options) and (most is None or len(image.data) <= most):
        return replace(image, media_type=decoded.media_type)  # its label may have been wrong
    data, media_type = encode(decoded.image, _media_types(decoded, rules, options), options.quality, most)
    return replace(image, data=data, media_type=media_type)


def prepare_images(
    images: Sequence[Image], rules: ImageConstraints, options: EncodingOptions = _DEFAULT
) -> list[Image]:
    """Make the images of one request ready, several at a time, and remember the results.

    Where all together are too large for the provider, each gets an equal share of what it takes.

    Args:
        images: In the order of the request.
        rules: What the provider takes.
        options: What the user wants.

    Returns:
        The images to send, in the same order.

    Raises:
        ImageError: As `prepare_image`; the text begins with the image's number, such as `Image 2`.

    """
    prepared = _prepare_each(images, rules, options)
    lengths = [_base64_length(len(image.data)) for image in prepared if image.data is not None]
    together = rules.max_total_base64_chars
    if together is None or sum(lengths) < together:
        return prepared
    share = min(together // len(lengths), rules.max_base64_chars or together)
    return _prepare_each(images, replace(rules, max_base64_chars=share), options)


def _prepare_each(images: Sequence[Image], rules: ImageConstraints, options: EncodingOptions) -> list[Image]:
    found = [image if image.data is None else _cache().get(image, rules, options) for image in images]
    missing = [place for place, image in enumerate(found) if image is None]

    def work(place: int) -> Image:
        try:
            prepared = prepare_image(images[place], rules, options)
        except ImageError as error:
            raise ImageError(f"Image {place + 1}: {error}") from error
        _cache().put(images[place], rules, options, prepared)
        return prepared

    if len(missing) > 1:  # Pillow lets other threads run while it decodes, scales and encodes
        made = dict(zip(missing, _pool().map(work, missing), strict=True))
    else:
        made = {place: work(place) for place in missing}
    return [made[place] if image is None else image for place, image in enumerate(found)]


def _target_size(
    width: int, height: int, *, detail: str | None, rules: ImageConstraints, options: EncodingOptions
) -> tuple[int, int]:
    size = target_size(width, height, detail=detail, max_pixels=options.max_pixels)
    if rules.max_side is not None:
        size = fit_within(*size, rules.max_side, rules.max_side)
    if (
        min(size) < rules.min_side <= min(width, height)
    ):  # a long strip: scaled further than the provider likes
        scale = rules.min_side / min(width, height)
        return math.ceil(width * scale), math.ceil(height * scale)
    return size


def _can_pass_through(decoded: DecodedImage, rules: ImageConstraints, options: EncodingOptions) -> bool:
    wanted = options.format in ("auto", decoded.media_type.removeprefix("image/"))
    return decoded.is_unmodified and wanted and decoded.media_type in rules.media_types


def _media_types(decoded: DecodedImage, rules: ImageConstraints, options: EncodingOptions) -> tuple[str, ...]:
    """Tell what the image may become, the best first."""
    taken = tuple(media_type for media_type in _ENCODED if media_type in rules.media_types)
    if options.format != "auto":
        taken = tuple(media_type for media_type in taken if media_type == f"image/{options.format}")
    if not taken:
        wanted = "JPEG or PNG" if options.format == "auto" else options.format.upper()
        raise ImageError(
            f"The image ({decoded.media_type}) has to be encoded anew, as {wanted}, and the provider takes only: "
            f"{', '.join(sorted(rules.media_types)) or 'nothing'}."
        )
    if len(taken) == 1:
        return taken
    if decoded.media_type != "image/jpeg" and is_graphic(decoded.image):
        return taken[::-1]
    return taken[:1]


def _max_bytes(rules: ImageConstraints) -> int | None:
    limits = [
        below - 1 for below in (rules.max_base64_chars, rules.max_total_base64_chars) if below is not None
    ]
    found = [characters // 4 * 3 for characters in limits]
    if rules.max_bytes is not None:
        found.append(rules.max_bytes)
    return min(found, default=None)


def _base64_length(count: int) -> int:
    return (count + 2) // 3 * 4


@cache
def _cache() -> PreparedImageCache:
    return PreparedImageCache()


@cache
def _pool() -> ThreadPoolExecutor:
    workers = min(_MOST_THREADS, os.cpu_count() or 1)
    return ThreadPoolExecutor(workers, thread_name_prefix="llama-vision-images")


def _reset_after_fork() -> None:
    _cache.cache_clear()
    _pool.cache_clear()


if hasattr(
    os, "register_at_fork"
):  # a forked process has the pool but none of its threads, and would wait for ever
    os.register_at_fork(after_in_child=_reset_after_fork)
