"""Images that are decoded at the same time share one budget of memory."""

import os
import threading
import time

import PIL.Image
import pytest

from llama_vision.core.errors import ImageError
from llama_vision.core.messages import Image
from llama_vision.images import decode as decoding
from llama_vision.images.decode import decode
from llama_vision.images.decode_budget import DecodeBudget, decode_budget
from tests.images.images import encoded


def test_who_does_not_fit_waits_for_the_others():
    budget = DecodeBudget(100)
    held, most, lock = 0, 0, threading.Lock()

    def work(num_bytes):
        nonlocal held, most
        with budget.reserve(num_bytes):
            with lock:
                held += num_bytes
                most = max(most, held)
            time.sleep(0.005)
            with lock:
                held -= num_bytes

    threads = [threading.Thread(target=work, args=(10 + number * 7 % 90,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert 50 < most <= 100


def test_small_ones_do_not_overtake_a_large_one_for_ever():
    budget = DecodeBudget(100)
    done = threading.Event()

    def large():
        with budget.reserve(100):
            done.set()

    with budget.reserve(60):
        thread = threading.Thread(target=large)
        thread.start()
        time.sleep(0.05)
        small = threading.Thread(target=lambda: budget.reserve(10).__enter__())
        small.start()
        time.sleep(0.05)
    assert done.wait(2)
    small.join(2)
    thread.join(2)


def test_what_fails_gives_its_memory_back():
    budget = DecodeBudget(100)
    for _ in range(3):
        with pytest.raises(KeyError), budget.reserve(100):
            raise KeyError
    with budget.reserve(100):
        pass


def test_six_large_images_at_once_are_decoded_one_after_another(monkeypatch):
    monkeypatch.setattr(decode_budget, "max_bytes", 15_000_000)
    data = encoded(PIL.Image.new("RGBA", (1500, 1500), (9, 9, 9, 99)))  # 9 MB
    busy, most, lock = 0, 0, threading.Lock()
    original = decoding.flatten

    def flatten(*args, **kwargs):
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.02)
        try:
            return original(*args, **kwargs)
        finally:
            with lock:
                busy -= 1

    monkeypatch.setattr(decoding, "flatten", flatten)
    threads = [
        threading.Thread(target=decode, args=(data, lambda *size: (size[0] // 4, size[1] // 4)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_forked_process_has_a_budget_of_its_own():
    with decode_budget.reserve(decode_budget.max_bytes):
        process = os.fork()
        if not process:
            with decode_budget.reserve(decode_budget.max_bytes):
                os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


def test_what_never_fits_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_DECODE_BYTES", 1_000_000)
    data = encoded(PIL.Image.new("RGBA", (1000, 1000)))
    with pytest.raises(
        ImageError,
        match=r"1000 x 1000 pixels can't be decoded: it takes \d+ MB .* of at most 1\. Scale it down",
    ):
        decode(data, lambda *size: size)


def test_what_fits_only_at_a_smaller_size_is_delivered_smaller(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_DECODE_BYTES", 3_000_000)
    jpeg = encoded(PIL.Image.new("RGB", (1000, 1000), "teal"), "JPEG")
    grays = encoded(PIL.Image.new("L", (1000, 1000)))
    for data in (jpeg, grays):
        assert decode(data, lambda *size: size).image.size == (500, 500)
    assert Image(data=jpeg).data
