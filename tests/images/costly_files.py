"""Files that are small on disk, or allowed in size, and dear to decode: each a function that makes one."""

import struct
import zlib

import PIL.Image

from tests.images.images import encoded

_ADAM7 = ((8, 8), (8, 8), (4, 8), (4, 4), (2, 4), (2, 2), (1, 2))  # of sides that 8 divides


def _chunk(kind, content):
    crc = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + crc


def png(width, height, depth, color_type, *, interlaced=False, palette=b""):
    """A PNG of zeros."""
    bits = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color_type] * depth
    packer = zlib.compressobj(1)
    parts = []
    for across, down in _ADAM7 if interlaced else ((1, 1),):
        row = bytes(1 + (width // across * bits + 7) // 8)
        rows = height // down
        parts += [packer.compress(row * 50) for _ in range(rows // 50)] + [packer.compress(row * (rows % 50))]
    body = b"".join((*parts, packer.flush()))
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, interlaced)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + palette
        + _chunk(b"IDAT", body)
        + _chunk(b"IEND", b"")
    )


def tiff(mode, side, compression="tiff_lzw"):
    return encoded(PIL.Image.new(mode, (side, side)), "TIFF", compression=compression)


def webp(side):
    """A lossless WebP of one color, of which only the size was changed."""
    data = bytearray(encoded(PIL.Image.new("RGB", (64, 64), (10, 200, 30)), "WEBP", lossless=True))
    (bits,) = struct.unpack_from("<I", data, 21)
    struct.pack_into("<I", data, 21, bits & ~0xFFFFFFF | side - 1 | side - 1 << 14)
    return bytes(data)


def jpeg_with_scans(width, height, scans):
    """A progressive JPEG whose last scan is repeated."""
    data = encoded(PIL.Image.new("RGB", (width, height), "teal"), "JPEG", progressive=True)
    end, last = data.rindex(b"\xff\xd9"), data.rindex(b"\xff\xda")
    return data[:end] + data[last:end] * (scans - data.count(b"\xff\xda")) + data[end:]


SMALL_JPEG = encoded(PIL.Image.new("RGB", (600, 400), "teal"), "JPEG")
SMALL_PNG = encoded(PIL.Image.new("RGB", (600, 400), "teal"))
SMALL_GIF = encoded(PIL.Image.new("P", (600, 400), 3), "GIF")


def gif_with_comment(block, count):
    at = 13 + 3 * (2 << (SMALL_GIF[10] & 7))
    comment = b"!\xfe" + (bytes([len(block)]) + block) * count + b"\0"
    return SMALL_GIF[:at] + comment + SMALL_GIF[at:]


def bmp_of_runs(side):
    """A run-length encoded BMP, in runs of one pixel."""
    body = b"\1\1" * (side * side // 2)
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(body), 0, 0, 256, 0) + bytes(1024)
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(body), 0, 0, 14 + len(header)) + header + body


def tiff_with_offsets(count):
    """A TIFF whose strip offsets are an endless list."""
    data = bytearray(encoded(PIL.Image.new("L", (64, 64)), "TIFF"))
    start = struct.unpack_from("<I", data, 4)[0]
    for at in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], 12):
        if struct.unpack_from("<H", data, at)[0] in (273, 279):
            struct.pack_into("<HII", data, at + 2, 4, count, len(data))
    return bytes(data) + b"\x08\0\0\0" * count


REFUSED = {
    "PNG 13,000 x 13,000 of 16-bit RGBA": lambda: png(13_000, 13_000, 16, 6),
    "PNG 13,000 x 13,000 of RGB": lambda: png(13_000, 13_000, 8, 2),
    "TIFF of real numbers, 13,000 x 13,000": lambda: tiff("F", 13_000),
    "lossless WebP, 13,000 x 13,000": lambda: webp(13_000),
    "JPEG with 400 scans of 6 megapixels": lambda: jpeg_with_scans(3000, 2000, 400),
    "JPEG of 50 MB of 0xFF": lambda: b"\xff\xd8" + b"\xff" * 50_000_000,
    "JPEG with 20 MB of empty segments": lambda: SMALL_JPEG[:2] + b"\xff\xe5\0\2" * 5_000_000 + SMALL_JPEG[2:],
    "JPEG with 20 MB of empty segments in its scan": lambda: SMALL_JPEG[:-2] + b"\xff\xe5\0\2" * 5_000_000 + SMALL_JPEG[-2:],
    "PNG with 20 MB of empty chunks": lambda: SMALL_PNG[:33] + _chunk(b"teXt", b"") * 1_700_000 + SMALL_PNG[33:],
    "PNG with 20 MB of empty pixel chunks": lambda: SMALL_PNG[:33] + _chunk(b"IDAT", b"") * 1_700_000 + SMALL_PNG[33:],
    "GIF with a comment in 10,000,000 blocks": lambda: gif_with_comment(b"c", 10_000_000),
    "GIF with 50 MB of zeros": lambda: SMALL_GIF[:13] + bytes(50_000_000),
    "BMP of 60,000,000 runs": lambda: bmp_of_runs(11_000),
    "TIFF with 10,000,000 strips": lambda: tiff_with_offsets(10_000_000),
}  # fmt: skip
SHOWN = {
    "JPEG with 50 MB of fill bytes": lambda: SMALL_JPEG[:2] + b"\xff" * 50_000_000 + SMALL_JPEG[2:],
    "JPEG with 50 MB of fill bytes in its scan": lambda: SMALL_JPEG[:-2] + b"\xff" * 50_000_000 + SMALL_JPEG[-2:],
    "GIF with a comment of 50 MB": lambda: gif_with_comment(b"c" * 255, 200_000),
    "PNG with a text of 50 MB": lambda: SMALL_PNG[:33] + _chunk(b"tEXt", b"a\0" + b"b" * 50_000_000) + SMALL_PNG[33:],
    "JPEG of 177 megapixels": lambda: encoded(PIL.Image.new("RGB", (13_300, 13_300), "teal"), "JPEG"),
    "progressive JPEG of 49 megapixels": lambda: encoded(PIL.Image.new("RGB", (7000, 7000), "teal"), "JPEG", progressive=True),
    "JPEG with 100 scans of 6 megapixels": lambda: jpeg_with_scans(3000, 2000, 100),
    "PNG 9,900 x 9,900 of RGB": lambda: png(9900, 9900, 8, 2),
    "interlaced PNG 9,600 x 9,600 of RGB": lambda: png(9600, 9600, 8, 2, interlaced=True),
    "PNG 8,600 x 8,600 of RGBA": lambda: png(8600, 8600, 8, 6),
    "PNG 6,000 x 6,000 of 16-bit RGBA": lambda: png(6000, 6000, 16, 6),
    "PNG 12,000 x 12,000 of grays": lambda: png(12_000, 12_000, 8, 0),
    "PNG 5,700 x 5,700 of 16-bit grays": lambda: png(5700, 5700, 16, 0),
    "PNG 13,000 x 13,000 of one bit": lambda: png(13_000, 13_000, 1, 0),
    "PNG 13,000 x 13,000 with a palette": lambda: png(13_000, 13_000, 8, 3, palette=_chunk(b"PLTE", bytes(768)) + _chunk(b"tRNS", b"\x80" * 256)),
    "TIFF of real numbers, 7,000 x 7,000": lambda: tiff("F", 7000),
    "TIFF of RGB, 7,000 x 7,000": lambda: tiff("RGB", 7000, "tiff_adobe_deflate"),
    "lossless WebP, 5,400 x 5,400": lambda: encoded(PIL.Image.new("RGBA", (5400, 5400)), "WEBP", lossless=True, method=0),
    "AVIF, 4,800 x 4,800": lambda: encoded(PIL.Image.new("RGB", (4800, 4800)), "AVIF", speed=10),
    "GIF 13,000 x 13,000": lambda: encoded(PIL.Image.new("P", (13_000, 13_000)), "GIF"),
    "BMP of 5,000 x 5,000": lambda: encoded(PIL.Image.new("RGB", (5000, 5000)), "BMP"),
}  # fmt: skip
