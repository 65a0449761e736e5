"""Pixels are sent as a viewer shows them: deep grays scaled, transparent colors on white, color profiles converted."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
from PIL import ImageCms

from llama_vision import image_from_any
from llama_vision.core.messages import Image
from llama_vision.images.constraints import ImageConstraints
from llama_vision.images.decode import decode
from llama_vision.images.prepare import prepare_image
from tests.images.images import as_image, encoded, mean_difference, opened, sketch

PNG_ONLY = ImageConstraints(media_types=frozenset({"image/png"}))
ANY_TYPE = ImageConstraints(
    media_types=frozenset(f"image/{kind}" for kind in ("png", "jpeg", "gif", "webp", "bmp", "tiff"))
)
LOCAL = ImageConstraints(decoded_by_backend=True)


def seen(image, constraints=PNG_ONLY):
    return np.asarray(opened(prepare_image(image, constraints)).convert("RGB"))


def ramp(dtype, high):
    return np.linspace(0, high, 10_000).reshape(100, 100).astype(dtype)


DEEP = {
    "I": PIL.Image.fromarray(ramp("int32", 65535)),
    "I of 8 bits": PIL.Image.fromarray(ramp("int32", 255)),
    "I of more": PIL.Image.fromarray(ramp("int32", 2_000_000)),
    "I;16": PIL.Image.fromarray(ramp("uint16", 65535)),
    "I;16B": PIL.Image.frombytes("I;16B", (100, 100), ramp(">u2", 65535).tobytes()),
    "F of fractions": PIL.Image.fromarray(ramp("float32", 1)),
    "F of 8 bits": PIL.Image.fromarray(ramp("float32", 255)),
    "F of 16 bits": PIL.Image.fromarray(ramp("float32", 65535)),
}


@pytest.mark.parametrize("image", DEEP.values(), ids=DEEP)
def test_deep_grays_of_a_pil_image_keep_their_shades(image):
    levels = seen(image_from_any(image))[..., 0].astype(int)
    assert abs(levels.mean() - 127.5) < 1
    assert np.abs(levels - ramp("float64", 255)).max() <= 1


@pytest.mark.parametrize("kind", ["TIFF", "PNG"])
def test_they_are_the_same_as_those_of_its_file(kind):
    image = DEEP["I;16"]
    data = encoded(image, kind)
    assert np.array_equal(seen(image_from_any(image)), seen(image_from_any(data)))
    assert np.array_equal(seen(image_from_any(PIL.Image.open(io.BytesIO(data)))), seen(image_from_any(data)))


def test_large_deep_grays_are_scaled_down_with_their_shades():
    image = PIL.Image.fromarray(np.tile(ramp("uint16", 65535), (30, 30)))
    levels = seen(as_image(image))
    assert max(levels.shape) == 1120
    assert abs(levels.mean() - 127.5) < 2


def png(depth, color_type, rows, key):
    """Write a PNG with a transparent color by hand: each row is its bytes."""

    def chunk(kind, content):
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    width = 4
    header = struct.pack(">IIBBBBB", width, len(rows), depth, color_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"tRNS", key)
        + chunk(b"IDAT", body)
        + chunk(b"IEND", b"")
    )


# Of four pixels the second has the transparent color.
KEYED = {
    "1 bit": (png(1, 0, [b"\x40"], b"\0\1"), [0, 255, 0, 0]),
    "2 bits": (png(2, 0, [b"\x1b"], b"\0\1"), [0, 255, 170, 255]),
    "4 bits": (png(4, 0, [b"\x01\x23"], b"\0\1"), [0, 255, 34, 51]),
    "8 bits": (png(8, 0, [bytes([0, 9, 8, 10])], b"\0\x09"), [0, 255, 8, 10]),
    "16 bits": (png(16, 0, [struct.pack(">4H", 0, 2570, 2571, 5140)], struct.pack(">H", 2570)), [0, 255, 10, 20]),
    "16 bits, black": (png(16, 0, [struct.pack(">4H", 257, 0, 514, 65535)], b"\0\0"), [1, 255, 2, 255]),
    "16 bits, white": (png(16, 0, [struct.pack(">4H", 0, 65535, 514, 257)], b"\xff\xff"), [0, 255, 2, 1]),
    "RGB": (png(8, 2, [bytes([1] * 3 + [9] * 3 + [8] * 3 + [9, 9, 8])], b"\0\x09" * 3), [1, 255, 8, 9]),
    "RGB of 16 bits": (
        png(16, 2, [struct.pack(">12H", *[257] * 3, *[2570] * 3, *[5140] * 3, *[514] * 3)], struct.pack(">3H", *[2570] * 3)),
        [1, 255, 20, 2],
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", ["file", "PIL", "local"])
@pytest.mark.parametrize(("data", "expected"), KEYED.values(), ids=KEYED)
def test_the_transparent_color_of_a_png_becomes_white(data, expected, how):
    if how == "local":
        pixels = np.asarray(decode(data, lambda *size: size).image)
    else:
        pixels = seen(image_from_any(data if how == "file" else PIL.Image.open(io.BytesIO(data))))
    assert pixels[0, :, 0].tolist() == expected


def bmp(alpha):
    """Write a bitmap with a mask for alpha (BITMAPV4HEADER), as Windows' clipboard has it."""
    image = sketch().convert("RGBA")
    image.putalpha(alpha)
    pixels = image.transpose(PIL.Image.Transpose.FLIP_TOP_BOTTOM).tobytes("raw", "BGRA")
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, *image.size, 1, 32, 3, len(pixels), 2835, 2835, 0, 0)
    header += masks + b"BGRs" + bytes(48)
    return (
        b"BM" + struct.pack("<IHHI", 14 + len(header) + len(pixels), 0, 0, 14 + len(header)) + header + pixels
    )


@pytest.mark.parametrize("how", ["file", "PIL", "local"])
def test_a_bitmap_whose_alpha_was_left_unset_is_opaque(how):
    data = bmp(0)
    assert PIL.Image.open(io.BytesIO(data)).getchannel("A").getextrema() == (0, 0)
    if how == "local":
        pixels = decode(data, lambda *size: size).image
    else:
        source = data if how == "file" else PIL.Image.open(io.BytesIO(data))
        pixels = opened(prepare_image(image_from_any(source), ANY_TYPE))
    assert pixels.mode == "RGB"
    assert np.array_equal(np.asarray(pixels), np.asarray(sketch()))


def test_a_bitmap_with_alpha_is_laid_on_white():
    data = bmp(PIL.Image.linear_gradient("L").resize(sketch().size))
    assert seen(image_from_any(data), ANY_TYPE)[0, 0].min() > 250


def test_another_format_that_is_transparent_everywhere_stays_white():
    image = sketch().convert("RGBA")
    image.putalpha(0)
    assert seen(as_image(image)).min() == 255


# Primaries and white of Display P3 with a gamma of 2.2, as XYZ relative to D50.
P3_COLUMNS = ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))


def profile(space="RGB "):
    """Write an ICC profile: matrix and curves, or a curve alone for gray."""

    def fixed(number):
        return struct.pack(">i", round(number * 65536))

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(2.2 * 256))
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78), b"cprt": b"text" + bytes(4) + b"CC0\0",
            b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642) + fixed(1) + fixed(0.8249)}  # fmt: skip
    if space == "GRAY":
        curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(1.0 * 256))
        tags[b"kTRC"] = curve
    else:
        for name, column in zip((b"r", b"g", b"b"), P3_COLUMNS, strict=True):
            tags[name + b"XYZ"] = b"XYZ " + bytes(4) + b"".join(map(fixed, column))
            tags[name + b"TRC"] = curve
    body, table, at = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s", at + len(body), bytes(4), 0x02400000, b"mntr", space.encode(), b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + fixed(0.9642) + fixed(1) + fixed(0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def in_srgb(image, icc, mode="RGB"):
    source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode)


@pytest.mark.parametrize("how", ["file", "PIL"])
@pytest.mark.parametrize(
    ("kind", "side"), [("JPEG", 90), ("PNG", 90), ("WEBP", 90), ("TIFF", 90), ("JPEG", 1800)]
)
def test_colors_of_a_wide_gamut_are_converted(kind, side, how):
    icc = profile()
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    data = encoded(sketch(side, side), kind, icc_profile=icc, **options)
    expected = in_srgb(sketch(), icc)
    assert mean_difference(expected, sketch()) > 5
    source = data if how == "file" else PIL.Image.open(io.BytesIO(data))
    sent = opened(prepare_image(image_from_any(source), PNG_ONLY))
    assert mean_difference(sent.resize((90, 60), PIL.Image.Resampling.NEAREST), expected) < 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_file_in_srgb_that_says_so_is_sent_byte_for_byte(kind):
    image = as_image(sketch(), kind, icc_profile=SRGB)
    assert prepare_image(image, ANY_TYPE).data == image.data


def test_gray_with_a_profile_of_its_own_is_converted():
    ramp_image = PIL.Image.fromarray(np.tile(np.arange(256, dtype="uint8"), (16, 1)))
    levels = seen(as_image(ramp_image, icc_profile=profile("GRAY")))[0, :, 0]
    assert levels[64] > 120  # linear light


def test_transparency_is_laid_on_white_before_the_conversion():
    image = sketch().convert("RGBA")
    image.putpixel((0, 0), (0, 0, 0, 0))
    assert seen(as_image(image, icc_profile=profile()))[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("icc", [b"", b"nonsense", profile()[:300], profile("GRAY"), bytes(5000)], ids=len)
def test_a_profile_that_can_not_be_used_is_ignored(icc):
    assert mean_difference(PIL.Image.fromarray(seen(as_image(sketch(), icc_profile=icc))), sketch()) < 1


def test_the_local_model_is_given_the_levels_of_the_file():
    data = encoded(sketch(), icc_profile=profile())
    prepared = prepare_image(Image(data=data, media_type="image/png"), LOCAL)
    assert prepared.data == data
    assert np.array_equal(np.asarray(decode(data, lambda *size: size).image), np.asarray(sketch()))


def test_a_pil_image_for_print_comes_out_in_its_colors():
    assert (
        mean_difference(opened(prepare_image(image_from_any(sketch().convert("CMYK")), PNG_ONLY)), sketch())
        < 1
    )
