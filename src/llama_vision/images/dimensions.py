"""Reads an image's width and height from its header, without a decoder."""

import re
import struct

_MARKER = re.compile(rb"\xff++([^\xff])", re.DOTALL)  # of a JPEG segment; there may be fill bytes
_MAX_SEGMENTS = 10_000
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # JPEG markers without a segment
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {
    0xC4,
    0xC8,
    0xCC,
}  # JPEG markers whose segment holds the size


def image_dimensions(data: bytes) -> tuple[int, int] | None:
    """Read width and height, as stored, of a PNG, JPEG, GIF or WebP or its beginning; None of anything else."""
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return struct.unpack_from(">II", data, 16)
        if data.startswith((b"GIF87a", b"GIF89a")):
            return struct.unpack_from("<HH", data, 6)
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg_size(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp_size(data)
    except struct.error:  # truncated
        pass
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Walk the segments to the start of frame."""
    at = 2
    for _ in range(_MAX_SEGMENTS):
        if not (found := _MARKER.match(data, at)):
            return None
        marker, at = found[1][0], found.end()
        if marker in _START_OF_FRAME:
            height, width = struct.unpack_from(">HH", data, at + 3)
            return width, height
        if marker not in _STANDALONE:
            at += struct.unpack_from(">H", data, at)[0]
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Read the first chunk, of one of three types: https://developers.google.com/speed/webp/docs/riff_container."""
    chunk = data[12:16]
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8X":
        width, width_high, height, height_high = struct.unpack_from("<HBHB", data, 24)
        return (width | width_high << 16) + 1, (height | height_high << 16) + 1
    return None
