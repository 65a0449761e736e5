"""Drops what no pixel needs before Pillow reads it: comments, text, thumbnails, fill bytes.

Pillow walks through segments, chunks and sub-blocks in Python, and joins comments piece by piece: a file of 50 MB of these
would take it a minute. Here a file's structure is read once, with an upper bound.
"""

import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

_MAX_SEGMENTS = 10_000  # JPEG; an XMP packet of 100 MB has 1,600
_MAX_CHUNKS = 100_000  # PNG; libpng writes 8 kB in each
_MAX_SUB_BLOCKS = 1_000_000  # GIF; of up to 255 bytes
_MAX_TIFF_NUMBERS = 1_000_000  # tiles of 16 x 16 of an image of 178 megapixels are 700,000
_TIFF_BYTE_TYPES = frozenset({1, 2, 6, 7})
_MIN_FILL_BYTES = 64  # JPEG; a run of so many is dropped, as Pillow would copy it over and over
_MAX_RLE_BYTES = 2_000_000  # BMP
_KEPT_CHUNKS = frozenset(
    {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"eXIf"}
)
_KEPT_SEGMENTS = (  # besides those without which nothing can be decoded: marker, beginning, and how many
    (0xE0, b"JFIF\0", 1),
    (0xE1, b"Exif\0", 1),
    (0xE2, b"ICC_PROFILE\0", 255),
    (0xEE, b"Adobe", 1),
)
_FIRST_APPLICATION_SEGMENT, _EOI, _SOS = 0xE0, 0xD9, 0xDA
_WITHOUT_SEGMENT = frozenset({0x00, 0x01, *range(0xD0, 0xDA)})
_MARKER = re.compile(rb"\xff++([^\xff])", re.DOTALL)
_FILL_BYTES = re.compile(rb"\xff{%d,}" % _MIN_FILL_BYTES)
# It begins with a single byte, for which `re` looks eight times as fast as for a repeated one.
_MARKER_IN_SCAN = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")


@dataclass(frozen=True, slots=True)
class StrippedFile:
    """A file without its metadata.

    Attributes:
        data: What is left of it: of an animation only the first frame.
        is_animated: Whether it has further frames.
        scans: How often a JPEG goes over its pixels; 1 of other formats.
        is_intact: Whether what was dropped has right checksums, which others may verify.
    """

    data: bytes
    is_animated: bool = False
    scans: int = 1
    is_intact: bool = True


def strip_metadata(data: bytes, media_type: str) -> StrippedFile:
    """Drop the metadata of a PNG, JPEG or GIF. Most damage is left to the decoder.

    Raises:
        ValueError: It has more pieces than any encoder writes, or no image data.
    """
    strip = _STRIP.get(media_type)
    return strip(data) if strip else StrippedFile(data)


def _strip_jpeg(data: bytes) -> StrippedFile:
    """Keep the segments that decoding needs, EXIF data and the color profile: ISO/IEC 10918-1, annex B."""
    kept, at = [b"\xff\xd8"], 2
    remaining = {(marker, head): count for marker, head, count in _KEPT_SEGMENTS}
    for _ in range(_MAX_SEGMENTS):
        if not (found := _MARKER.match(data, at)):
            raise ValueError("it has no image data")
        marker = found[1][0]
        begin, end = found.end(), found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
        if marker == _SOS:
            scan = data[begin - 2 :]
            if b"\xff" * _MIN_FILL_BYTES in scan:  # before a marker there may be any number of them
                scan = _FILL_BYTES.sub(b"\xff", scan)
            return StrippedFile(b"".join((*kept, scan)), scans=_count_scans(scan, end - begin + 2))
        if marker in _WITHOUT_SEGMENT:
            at = begin
            continue
        if marker < _FIRST_APPLICATION_SEGMENT or _take(remaining, marker, data[begin + 2 : begin + 16]):
            kept.append(data[begin - 2 : end])
        at = max(end, begin + 2)
    raise ValueError(f"it has more than {_MAX_SEGMENTS} segments before its pixels")


def _take(remaining: dict[tuple[int, bytes], int], marker: int, body: bytes) -> bool:
    for kind, count in remaining.items():
        if kind[0] == marker and body.startswith(kind[1]) and count:
            remaining[kind] -= 1
            return True
    return False


def _count_scans(data: bytes, at: int) -> int:
    scans = 1
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER_IN_SCAN.search(data, at)
        if not found or found[1][0] == _EOI:
            return scans
        scans += found[1][0] == _SOS
        at = found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2], "big"))
    raise ValueError(f"it has more than {_MAX_SEGMENTS} segments among its pixels")


def _strip_png(data: bytes) -> StrippedFile:
    """Keep the chunks that decoding needs, EXIF data and the color profile: https://www.w3.org/TR/png-3/#11Chunks."""
    kept, at, begin, is_animated, is_intact = [data[:8]], 8, 8, False, True
    for _ in range(_MAX_CHUNKS):
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        is_animated = is_animated or kind == b"acTL"
        # What is no name is left to the decoder, which refuses it: the file may be sent as it is.
        if kind not in _KEPT_CHUNKS and kind.isalpha() and kind[:1].islower():
            kept.append(data[begin:at])
            begin = end
            is_intact = is_intact and _has_right_crc(data, at, end)
        at = end
        if kind == b"IEND" or at >= len(data):
            rest = data[begin:end]
            return StrippedFile(b"".join((*kept, rest)), is_animated=is_animated, is_intact=is_intact)
    raise ValueError(f"it has more than {_MAX_CHUNKS} chunks")


def _has_right_crc(data: bytes, begin: int, end: int) -> bool:
    return zlib.crc32(memoryview(data)[begin + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")


def _strip_gif(data: bytes) -> StrippedFile:
    """Keep the first frame and its graphic control extension: https://www.w3.org/Graphics/GIF/spec-gif89a.txt."""
    at = 13 + _color_table_bytes(data, 10)
    head, control, frame = data[:at], b"", b""
    sub_blocks = iter(range(_MAX_SUB_BLOCKS))
    while at < len(data):
        begin, kind = at, data[at : at + 1]
        if kind == b"!":
            at = _skip_sub_blocks(data, at + 2, sub_blocks)
            if data[begin + 1 : begin + 2] == b"\xf9" and not frame:
                control = data[begin:at]
        elif kind == b"," and not frame:
            at = _skip_sub_blocks(data, at + 11 + _color_table_bytes(data, at + 9), sub_blocks)
            frame = data[begin:at]
        else:
            if not frame and kind != b";":
                raise ValueError(f"it has an unknown block, {kind!r}")
            return StrippedFile(head + control + frame + b";", is_animated=kind == b",")
    return StrippedFile(head + control + frame)  # cut off: the decoder tells whether pixels are missing


def _check_bmp(data: bytes) -> StrippedFile:
    """Refuse a large one with run-length encoding, which Pillow decodes in Python."""
    if len(data) > _MAX_RLE_BYTES and int.from_bytes(data[30:34], "little") in (1, 2):
        raise ValueError(f"it is run-length encoded and has more than {_MAX_RLE_BYTES} bytes")
    return StrippedFile(data)


def _check_tiff(data: bytes) -> StrippedFile:
    """Refuse lists of numbers without end, which Pillow reads as Python's: TIFF 6.0 and https://www.awaresystems.be/imaging/tiff/bigtiff.html."""
    order: Literal["little", "big"] = "little" if data[:1] == b"I" else "big"
    is_big = b"+" in data[2:4]
    offset_bytes, count_bytes, entry_bytes = (8, 8, 20) if is_big else (4, 2, 12)
    at = int.from_bytes(data[8:16] if is_big else data[4:8], order)
    num_entries = int.from_bytes(data[at : at + count_bytes], order)
    at += count_bytes
    for entry in range(at, min(at + num_entries * entry_bytes, len(data)), entry_bytes):
        kind = int.from_bytes(data[entry + 2 : entry + 4], order)
        count = int.from_bytes(data[entry + 4 : entry + 4 + offset_bytes], order)
        if kind not in _TIFF_BYTE_TYPES and count > _MAX_TIFF_NUMBERS:
            raise ValueError(f"it has a list of {count} numbers, of at most {_MAX_TIFF_NUMBERS}")
    return StrippedFile(data)


def _color_table_bytes(data: bytes, flags_at: int) -> int:
    flags = data[flags_at] if flags_at < len(data) else 0
    return 3 * (2 << (flags & 7)) if flags & 0x80 else 0


def _skip_sub_blocks(data: bytes, at: int, counter: Iterator[int]) -> int:
    for _ in counter:
        size = data[at] if at < len(data) else 0
        at += 1 + size
        if not size:
            return at
    raise ValueError(f"it has more than {_MAX_SUB_BLOCKS} blocks")


_STRIP: dict[str, Callable[[bytes], StrippedFile]] = {
    "image/jpeg": _strip_jpeg,
    "image/png": _strip_png,
    "image/gif": _strip_gif,
    "image/bmp": _check_bmp,
    "image/tiff": _check_tiff,
}
