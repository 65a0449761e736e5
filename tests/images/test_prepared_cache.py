"""An image that was prepared before is not prepared again, and the memory for that is bounded."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from llama_vision.core.messages import Image
from llama_vision.images.cache import PreparedImageCache
from llama_vision.images.constraints import ImageConstraints
from llama_vision.images.prepare import prepare_images
from llama_vision.images.settings import EncodingOptions
from tests.images.images import as_image, photo

RULES, OPTIONS = ImageConstraints(), EncodingOptions()


def made_up(number, length=10_000):
    """Make bytes that differ in the middle only."""
    return Image(data=b"\0" * 5000 + number.to_bytes(4, "big") + b"\0" * (length - 5004))


def small(number):
    return Image(data=number.to_bytes(4, "big"), media_type="image/png")


def test_an_equal_copy_is_found():
    cache = PreparedImageCache()
    cache.put(made_up(1), RULES, OPTIONS, small(1))
    assert cache.get(made_up(1), RULES, OPTIONS) == small(1)
    assert cache.get(replace(made_up(1), media_type="image/gif"), RULES, OPTIONS) == small(1)


@pytest.mark.parametrize(
    ("other", "rules", "options"),
    [
        (replace(made_up(1), detail="low"), RULES, OPTIONS),
        (made_up(1), replace(RULES, max_side=5), OPTIONS),
        (made_up(1), RULES, EncodingOptions(quality=5)),
        (made_up(1, 10_001), RULES, OPTIONS),
        (made_up(2), RULES, OPTIONS),
    ],
)
def test_anything_else_is_not_found(other, rules, options):
    cache = PreparedImageCache()
    cache.put(made_up(1), RULES, OPTIONS, small(1))
    assert cache.get(other, rules, options) is None


def test_of_two_that_differ_in_the_middle_only_the_last_is_remembered():
    cache = PreparedImageCache()
    for number in (1, 2):
        cache.put(made_up(number), RULES, OPTIONS, small(number))
    assert cache.get(made_up(1), RULES, OPTIONS) is None
    assert cache.get(made_up(2), RULES, OPTIONS) == small(2)
    assert cache.total_bytes == 10_004


def test_the_longest_unused_goes_first():
    cache = PreparedImageCache(max_bytes=30_100)
    for length in (10_000, 10_001, 10_002):
        cache.put(made_up(1, length), RULES, OPTIONS, small(1))
    assert cache.get(made_up(1), RULES, OPTIONS) is not None
    cache.put(made_up(1, 10_003), RULES, OPTIONS, small(1))
    kept = [length for length in range(10_000, 10_004) if cache.get(made_up(1, length), RULES, OPTIONS)]
    assert kept == [10_000, 10_002, 10_003]
    assert len(cache) == 3
    assert cache.total_bytes == 30_005 + 12


def test_originals_and_results_count_and_what_was_passed_on_counts_once():
    cache = PreparedImageCache()
    cache.put(made_up(1), RULES, OPTIONS, made_up(2))
    assert cache.total_bytes == 20_000
    passed_on = made_up(3, 20_000)
    cache.put(passed_on, RULES, OPTIONS, replace(passed_on, media_type="image/png"))
    assert cache.total_bytes == 40_000
    cache.clear()
    assert (len(cache), cache.total_bytes) == (0, 0)


def test_what_is_larger_than_all_is_not_kept_and_drives_nothing_out():
    cache = PreparedImageCache(max_bytes=15_000)
    cache.put(made_up(1), RULES, OPTIONS, small(1))
    cache.put(made_up(1, 15_000), RULES, OPTIONS, small(1))
    assert cache.get(made_up(1), RULES, OPTIONS) == small(1)
    assert len(cache) == 1


def test_many_threads_may_share_it():
    cache = PreparedImageCache(max_bytes=100_000)

    def work(seed):
        for step in range(300):
            length = 10_000 + (seed * 7 + step) % 23
            found = cache.get(made_up(length, length), RULES, OPTIONS)
            assert found in (None, small(length))
            cache.put(made_up(length, length), RULES, OPTIONS, small(length))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert 80_000 < cache.total_bytes <= 100_000
    assert cache.total_bytes == sum(
        10_000 + n + 4 for n in range(23) if cache.get(made_up(10_000 + n, 10_000 + n), RULES, OPTIONS)
    )


def test_a_repeated_image_costs_next_to_nothing():
    image = as_image(photo(2400, 1800), "JPEG")
    (first,) = prepare_images([image], RULES)
    times = []
    for _ in range(9):
        copy = replace(image, data=bytes(bytearray(image.data)))
        began = time.perf_counter()
        (again,) = prepare_images([copy], RULES)
        times.append(time.perf_counter() - began)
        assert again is first
    assert min(times) < 0.005


def test_an_error_is_not_remembered_as_a_image():
    bad = Image(data=b"\xff\xd8\xff nothing", media_type="image/jpeg")
    for _ in range(2):
        with pytest.raises(Exception, match="Image 1: "):
            prepare_images([bad], RULES)
