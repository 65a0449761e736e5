"""How many pixels an image has, by its own first bytes: no decoder is needed to ask a record's rules."""

import struct

_MARK = 0xFF  # begins each of JPEG's markers, and pads them
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})  # JPEG's markers without a segment
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG's markers whose segment holds the size


def image_dimensions(data: bytes) -> tuple[int, int] | None:
    """Read width and height.

    Args:
        data: A PNG, JPEG, GIF or WebP, or its beginning.

    Returns:
        Width and height as they are stored, before any turning; None where they can't be told.

    """
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return struct.unpack_from(">II", data, 16)
        if data.startswith((b"GIF87a", b"GIF89a")):
            return struct.unpack_from("<HH", data, 6)
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg_size(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp_size(data)
    except struct.error:  # it ends too soon
        pass
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Walk from segment to segment to the one that describes the frame."""
    place = 2
    while True:
        mark, kind = struct.unpack_from("BB", data, place)
        if mark != _MARK:
            return None
        if kind in _FRAMES:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        if kind == _MARK:
            place += 1
        elif kind in _BARE:
            place += 2
        else:
            place += 2 + struct.unpack_from(">H", data, place + 2)[0]


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Look into the first chunk, of which there are three kinds: https://developers.google.com/speed/webp/docs/riff_container."""
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        width, more, height, rest = struct.unpack_from("<HBHB", data, 24)
        return (width | more << 16) + 1, (height | rest << 16) + 1
    return None
