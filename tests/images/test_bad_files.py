"""Whatever the bytes are, there comes a picture or an ImageError, and soon."""

import io
import struct
import time
import zlib

import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_vision.core.errors import ImageError
from llama_vision.core.messages import Image
from llama_vision.images.constraints import ImageConstraints
from llama_vision.images.contact_sheet import contact_sheet
from llama_vision.images.decode import MAX_PIXELS
from llama_vision.images.prepare import prepare_image
from tests.images.images import HAS_AVIF, difference, encoded, photo, sketch

RULES = ImageConstraints()
KINDS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", *(["AVIF"] if HAS_AVIF else []))
FILES = {kind: encoded(photo(60, 40), kind) for kind in KINDS}
FILES["progressive JPEG"] = encoded(photo(60, 40), "JPEG", progressive=True)
FILES["lossless WEBP"] = encoded(photo(60, 40), "WEBP", lossless=True)
FILES["packed TIFF"] = encoded(photo(60, 40), "TIFF", compression="tiff_adobe_deflate")
FILES["animated GIF"] = encoded(sketch(), "GIF", save_all=True, append_images=[photo(90, 60)] * 3)
FILES["animated WEBP"] = encoded(sketch(), "WEBP", save_all=True, append_images=[photo(90, 60)] * 3)
FILES["animated PNG"] = encoded(sketch(), "PNG", save_all=True, append_images=[photo(90, 60)] * 3)
SECONDS = 5.0  # far more than any of them takes, on a machine that is busy


def outcome(data):
    """Prepare a file: the decoded image, or None where it is refused by name."""
    began = time.perf_counter()
    try:
        prepared = prepare_image(Image(data=data, media_type="image/png"), RULES)
    except ImageError as error:
        return None if len(str(error)) < 600 else error
    finally:
        assert time.perf_counter() - began < SECONDS
    assert prepared.media_type in RULES.media_types
    image = PIL.Image.open(io.BytesIO(prepared.data))
    image.load()
    assert max(image.size) <= 2240
    return image


def refusal(data):
    with pytest.raises(ImageError) as caught:
        prepare_image(Image(data=data, media_type="image/png"), RULES)
    return str(caught.value)


@pytest.mark.parametrize("data", FILES.values(), ids=FILES.keys())
def test_the_files_are_good_before_they_are_spoilt(data):
    assert outcome(data) is not None


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_cut_off_is_refused_or_lacks_nothing(kind):
    data = FILES[kind]
    lengths = {*range(min(len(data), 80)), *range(80, len(data), max(1, len(data) // 80)), len(data) - 1}
    refused = sum(outcome(data[:length]) is None for length in lengths)
    # Some formats end in what nobody needs, such as checksums, padding and further frames.
    assert refused >= len(lengths) * (0.5 if "animated" in kind else 0.9)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_the_refusal_says_what_it_is_and_what_to_do(kind, share):
    data = FILES[kind][: int(len(FILES[kind]) * share)]
    assert refusal(data).startswith(f"The {kind} file of {len(data)} bytes can't be decoded: ")
    assert "It is cut off or damaged; save or fetch it again." in refusal(data)


@pytest.mark.parametrize("kind", KINDS)
def test_another_format_behind_the_magic_bytes(kind):
    for other in KINDS:
        if other != kind:
            assert outcome(FILES[kind][:12] + FILES[other][12:]) is None


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\0" * 10_000, b"GIF89a", b"BM", b"II*\x00", b"\xff\xd8\xff", b"hello"]
)
def test_next_to_nothing(data):
    assert refusal(data)


def png_claiming(width, height, body=b""):
    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def claiming(kind, width, height):
    """Make a file of which only the header lies."""
    data = bytearray(encoded(PIL.Image.new("RGB", (8, 8)), kind))
    match kind:
        case "PNG":
            return png_claiming(width, height, zlib.compress(b"\0" * 1000))
        case "JPEG":
            place = data.index(b"\xff\xc0")
            data[place + 5 : place + 9] = struct.pack(">HH", height, width)
        case "GIF":
            data[6:10] = struct.pack("<HH", width, height)
        case "BMP":
            data[18:26] = struct.pack("<ii", width, height)
        case "TIFF":
            for tag, value in ((256, width), (257, height)):
                place = (
                    data.index(struct.pack("<HHI", tag, 4, 1))
                    if struct.pack("<HHI", tag, 4, 1) in data
                    else -1
                )
                if place < 0:
                    place = data.index(struct.pack("<HHI", tag, 3, 1))
                data[place : place + 12] = struct.pack("<HHII", tag, 4, 1, value)
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF"])
def test_a_bomb_is_not_decoded(kind):
    began = time.perf_counter()
    text = refusal(claiming(kind, 30_000, 30_000))
    assert time.perf_counter() - began < 1
    assert "claims 30000 x 30000 pixels, more than 178 million, and was not decoded" in text


def test_a_webp_bomb_is_not_decoded():
    claim = (16383 - 1).to_bytes(3, "little") * 2
    data = b"RIFF\x64\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0" + claim + b"ANIM\6\0\0\0" + b"\0" * 60
    assert "claims 16383 x 16383 pixels" in refusal(data)


def test_a_size_that_pillow_would_warn_of_is_judged_by_what_the_file_holds():
    side = int(MAX_PIXELS**0.5) - 1
    assert "can't be decoded" in refusal(png_claiming(side, side, zlib.compress(b"\0" * 1000)))
    assert "bomb" not in refusal(png_claiming(side, side, zlib.compress(b"\0" * 1000)))


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
@pytest.mark.parametrize("kind", ["PNG", "GIF", "JPEG"])
def test_no_pixels_at_all(kind, size):
    assert "there is nothing to see" in refusal(claiming(kind, *size))


def test_of_a_gif_with_thousands_of_frames_one_is_decoded():
    frame = encoded(PIL.Image.new("P", (40, 40)), "GIF")
    body = frame[frame.index(b",") : -1]
    began = time.perf_counter()
    image = outcome(frame[:-1] + body * 50_000 + b";")
    assert time.perf_counter() - began < 2
    assert image.size == (40, 40)


def test_a_png_whose_words_are_a_bomb_is_sent_without_them():
    words = b"Comment\0\0" + zlib.compress(b"\0" * 80_000_000)
    chunk = struct.pack(">I", len(words)) + b"zTXt" + words + struct.pack(">I", zlib.crc32(b"zTXt" + words))
    data = FILES["PNG"][:33] + chunk + FILES["PNG"][33:]
    prepared = prepare_image(Image(data=data, media_type="image/png"), RULES)
    assert b"zTXt" not in prepared.data
    assert outcome(data).size == (60, 40)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
@pytest.mark.parametrize(
    "tail", [b"PK\3\4 an archive", b"%PDF-1.7", b"<script>alert(1)</script>", FILES["PNG"]]
)
def test_of_a_polyglot_only_the_image_is_seen(kind, tail):
    image = outcome(FILES[kind] + tail)
    assert image.format == kind
    assert image.size == (60, 40)


def test_a_tiff_whose_directories_go_in_a_circle_ends():
    data = bytearray(encoded(sketch(), "TIFF"))
    start = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, start)[0]
    struct.pack_into("<I", data, start + 2 + 12 * count, start)
    assert difference(outcome(bytes(data)), sketch()) == 0


@pytest.mark.parametrize("kind", ["TIFF", "PNG"])
@pytest.mark.parametrize("orientation", [0, 9, 99, 65535])
def test_an_orientation_that_there_is_not_is_ignored(kind, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    assert difference(outcome(encoded(sketch(), kind, exif=exif)), sketch()) == 0


def test_a_tiff_with_an_endless_list_is_refused():
    data = bytearray(encoded(sketch(), "TIFF"))
    start = struct.unpack_from("<I", data, 4)[0]
    struct.pack_into("<HHII", data, start + 2, 273, 4, 1_000_001, 8)
    assert "it has a list of 1000001 numbers, of at most 1000000" in refusal(bytes(data))


def test_a_png_whose_chunk_has_no_name_is_refused():
    data = FILES["animated PNG"].replace(b"acTL", b"ac\0L")
    assert "The PNG file of" in refusal(data)


def test_a_bad_image_on_a_sheet_is_named_by_its_number():
    good = Image(data=FILES["PNG"], media_type="image/png")
    with pytest.raises(ImageError, match=r"^Image 2: The JPEG file of"):
        contact_sheet([good, Image(data=FILES["JPEG"][:300], media_type="image/jpeg")])


def test_a_png_whose_metadata_are_damaged_is_encoded_anew():
    data = bytearray(FILES["animated PNG"])
    data[data.index(b"acTL") + 2] = ord("A")
    image = outcome(bytes(data))
    assert image is not None
    assert image.size == PIL.Image.open(io.BytesIO(FILES["animated PNG"])).size


CHANGES = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)) | st.floats(0, 1),
    min_size=1,
    max_size=8,
)


@settings(deadline=None, max_examples=250, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(FILES)), CHANGES)
def test_any_damage_gives_a_image_or_an_image_error(kind, changes):
    data = bytearray(FILES[kind])
    for change in changes:
        if isinstance(change, tuple):
            place, value = change
            # Headers are where damage matters most, so half of it is put there.
            data[int(place * 2 * min(120, len(data))) if place < 0.5 else int(place * len(data))] = value
        elif len(data) > 300:
            del data[int(change * len(data)) : int(change * len(data)) + 3]
    outcome(bytes(data))


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(sorted(FILES)), st.integers(0, 64), st.binary(max_size=200))
def test_any_bytes_behind_a_beginning_give_an_image_error_or_a_image(kind, length, rest):
    outcome(FILES[kind][:length] + rest)
