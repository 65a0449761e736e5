"""Prepares images for a provider: upright, on white, no larger than the model uses, in an accepted encoding."""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from typing import TypeVar

from llama_vision.core.errors import ImageError
from llama_vision.core.messages import Image
from llama_vision.images.cache import PreparedImageCache
from llama_vision.images.constraints import ImageConstraints
from llama_vision.images.decode import DecodedImage, decode
from llama_vision.images.dimensions import image_dimensions
from llama_vision.images.encode import base64_length, encode, is_graphic
from llama_vision.images.media_type import sniff_media_type
from llama_vision.images.settings import EncodingOptions
from llama_vision.images.tiling import fit_within, limit_pixels, target_size

_DEFAULT = EncodingOptions()
_ENCODINGS = ("image/jpeg", "image/png")  # what is written here, whatever else providers decode
_Result = TypeVar("_Result")
_MAX_THREADS = 4  # each may hold a whole decoded image


def prepare_image(image: Image, constraints: ImageConstraints, options: EncodingOptions = _DEFAULT) -> Image:
    """Prepare an image to be sent.

    A file that is accepted as it is is passed through byte for byte. Every other is encoded again, without its EXIF
    data. Sides below `constraints.min_side` are left to `adaptation.validate`.

    Args:
        image: Any image.
        constraints: What the provider accepts.
        options: How to encode.

    Returns:
        The image to send, of at most 1120 x 1120 or 560 x 2240 pixels and the like, with the same `detail`; where the
        backend decodes it, the file itself unless `max_pixels` or `detail` ask for fewer pixels. One that is given by
        its URL is returned as it is.

    Raises:
        ImageError: It is no image, is damaged or too large to be decoded, or can't be encoded as the provider wants.
    """
    if image.data is None:
        return image
    if _needs_no_decoding(image, constraints, options):
        return replace(image, media_type=sniff_media_type(image.data))
    decoded = decode(
        image.data,
        partial(_target_size, detail=image.detail, constraints=constraints, options=options),
        color_managed=not constraints.decoded_by_backend,
    )
    max_bytes = _max_bytes(constraints)
    if _can_pass_through(decoded, constraints, options) and (
        max_bytes is None or len(image.data) <= max_bytes
    ):
        return replace(image, media_type=decoded.media_type)  # its label may have been wrong
    media_types = _media_types(decoded, constraints, options)
    data, media_type = encode(decoded.image, media_types, options.quality, max_bytes)
    return replace(image, data=data, media_type=media_type)


def prepare_images(
    images: Sequence[Image], constraints: ImageConstraints, options: EncodingOptions = _DEFAULT
) -> list[Image]:
    """Prepare the images of one request, several at a time, and cache the results.

    Where all together are too large for the provider, each gets an equal share of its limit.

    Args:
        images: In the order of the request.
        constraints: What the provider accepts.
        options: How to encode.

    Returns:
        The images to send, in the same order.

    Raises:
        ImageError: As `prepare_image`; the text begins with the image's number, such as `Image 2`.
    """
    prepared = _wait(_prepare_each(images, constraints, options))
    if (smaller := _equal_shares(prepared, constraints)) is not None:
        prepared = _wait(_prepare_each(images, smaller, options))
    return prepared


async def aprepare_images(
    images: Sequence[Image], constraints: ImageConstraints, options: EncodingOptions = _DEFAULT
) -> list[Image]:
    """As `prepare_images`, in threads of its own: the event loop's few may all be waiting for something."""
    prepared = await _await(_prepare_each(images, constraints, options))
    if (smaller := _equal_shares(prepared, constraints)) is not None:
        prepared = await _await(_prepare_each(images, smaller, options))
    return prepared


async def run_in_pool(function: Callable[[], _Result]) -> _Result:
    """Run what takes a while in one of the threads that prepare images; it must not wait for another one."""
    import asyncio  # noqa: PLC0415 - loaded late

    return await asyncio.wrap_future(_submit(function))


def _submit(function: Callable[[], _Result]) -> Future[_Result]:
    try:
        return _pool().submit(function)
    except RuntimeError as error:  # the system has no thread to spare, or the program is ending
        raise ImageError(f"The image can't be prepared: {error}.") from error


def _equal_shares(prepared: Sequence[Image], constraints: ImageConstraints) -> ImageConstraints | None:
    """Where all images together are too large, give each an equal share of the provider's limit; else None."""
    lengths = [base64_length(image) for image in prepared if image.data is not None]
    limit = constraints.max_total_base64_chars
    if limit is None or sum(lengths) < limit:
        return None
    share = min(limit // len(lengths), constraints.max_base64_chars or limit)
    return replace(constraints, max_base64_chars=share)


def _prepare_each(
    images: Sequence[Image], constraints: ImageConstraints, options: EncodingOptions
) -> list[Image | Callable[[], Image]]:
    """Look each image up in the cache; where it is not there, return what prepares it."""

    def prepare(index: int) -> Image:
        try:
            prepared = prepare_image(images[index], constraints, options)
        except ImageError as error:
            raise ImageError.numbered(index + 1, error) from error
        if not _needs_no_decoding(images[index], constraints, options):
            _cache().put(images[index], constraints, options, prepared)
        return prepared

    return [
        image if image.data is None else _cache().get(image, constraints, options) or partial(prepare, index)
        for index, image in enumerate(images)
    ]


def _wait(steps: Sequence[Image | Callable[[], Image]]) -> list[Image]:
    missing = [step for step in steps if not isinstance(step, Image)]
    # Pillow releases the GIL while it decodes, scales and encodes.
    if len(missing) > 1:
        missing = [future.result for future in map(_submit, missing)]
    made = map(_call, missing)
    return [step if isinstance(step, Image) else next(made) for step in steps]


async def _await(steps: Sequence[Image | Callable[[], Image]]) -> list[Image]:
    import asyncio  # noqa: PLC0415 - loaded late

    missing = [step for step in steps if not isinstance(step, Image)]
    made = iter(await asyncio.gather(*map(run_in_pool, missing)))
    return [step if isinstance(step, Image) else next(made) for step in steps]


def _call(step: Callable[[], Image]) -> Image:
    return step()


def _needs_no_decoding(image: Image, constraints: ImageConstraints, options: EncodingOptions) -> bool:
    """Tell whether the backend decodes the file, and need not be given fewer pixels of it."""
    if not constraints.decoded_by_backend:
        return False
    if options.max_pixels is None and image.detail != "low":
        return True
    size = image_dimensions(image.data or b"")
    return size is not None and size == _target_size(
        *size, detail=image.detail, constraints=constraints, options=options
    )


def _target_size(
    width: int, height: int, *, detail: str | None, constraints: ImageConstraints, options: EncodingOptions
) -> tuple[int, int]:
    if constraints.decoded_by_backend and detail != "low":
        return limit_pixels(width, height, options.max_pixels)
    size = target_size(width, height, detail=detail, max_pixels=options.max_pixels)
    if constraints.max_side is not None:
        size = fit_within(*size, constraints.max_side, constraints.max_side)
    if min(size) < constraints.min_side <= min(width, height):  # a long strip, scaled below the minimum
        scale = constraints.min_side / min(width, height)
        return math.ceil(width * scale), math.ceil(height * scale)
    return size


def _can_pass_through(decoded: DecodedImage, constraints: ImageConstraints, options: EncodingOptions) -> bool:
    if not decoded.is_unmodified:
        return False
    wanted = options.format in ("auto", decoded.media_type.removeprefix("image/"))
    return constraints.decoded_by_backend or (wanted and decoded.media_type in constraints.media_types)


def _media_types(
    decoded: DecodedImage, constraints: ImageConstraints, options: EncodingOptions
) -> tuple[str, ...]:
    """List the encodings to choose from, the preferred one first."""
    if constraints.decoded_by_backend:
        return ("image/png",)
    accepted = tuple(media_type for media_type in _ENCODINGS if media_type in constraints.media_types)
    if options.format != "auto":
        accepted = tuple(media_type for media_type in accepted if media_type == f"image/{options.format}")
    if not accepted:
        wanted = "JPEG or PNG" if options.format == "auto" else options.format.upper()
        raise ImageError(
            f"The image ({decoded.media_type}) has to be encoded anew, as {wanted}, and the provider takes only: "
            f"{', '.join(sorted(constraints.media_types)) or 'nothing'}."
        )
    if len(accepted) > 1 and decoded.media_type != "image/jpeg" and is_graphic(decoded.image):
        return accepted[::-1]
    return accepted[:1]


def _max_bytes(constraints: ImageConstraints) -> int | None:
    base64_limits = (constraints.max_base64_chars, constraints.max_total_base64_chars)
    limits = [(limit - 1) // 4 * 3 for limit in base64_limits if limit is not None]
    if constraints.max_bytes is not None:
        limits.append(constraints.max_bytes)
    return min(limits, default=None)


@cache
def _cache() -> PreparedImageCache:
    return PreparedImageCache()


@cache
def _pool() -> ThreadPoolExecutor:
    workers = min(_MAX_THREADS, os.cpu_count() or 1)
    return ThreadPoolExecutor(workers, thread_name_prefix="llama-vision-images")


def _reset_after_fork() -> None:
    """Drop the pool: a forked process has none of its threads, and would wait for ever."""
    _cache.cache_clear()
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
