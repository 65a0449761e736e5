"""Pages of a TIFF, without a decoder: https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf, section 2."""

import struct

_FORMATS = {  # by the first bytes: byte order, the type of offsets, of counts, and the header's field of the first offset
    b"II*\x00": ("<", "I", "H", 4),
    b"MM\x00*": (">", "I", "H", 4),
    b"II+\x00": ("<", "Q", "Q", 8),  # BigTIFF
    b"MM\x00+": (">", "Q", "Q", 8),
}
_NEW_SUBFILE_TYPE = 254
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType: a preview, a transparency mask
_MAX_DIRECTORIES = 100_000


def tiff_page_offsets(data: bytes) -> list[int]:
    """Find the pages of a TIFF.

    Args:
        data: Any file.

    Returns:
        The offset of each page's directory: none of a file that is no TIFF, or damaged before the first. Previews and
        masks are no pages.
    """
    layout = _FORMATS.get(bytes(data[:4]))
    if layout is None:
        return []
    order, offset_type, count_type, first = layout
    pages: list[int] = []
    seen: set[int] = set()
    try:
        (offset,) = struct.unpack_from(order + offset_type, data, first)
        while offset and offset not in seen and len(seen) < _MAX_DIRECTORIES:
            seen.add(offset)
            if not _subfile_type(data, offset, order, count_type) & (_REDUCED | _MASK):
                pages.append(offset)
            entries = struct.unpack_from(order + count_type, data, offset)[0]
            end = offset + struct.calcsize("=" + count_type) + entries * _entry_size(count_type)
            (offset,) = struct.unpack_from(order + offset_type, data, end)
    except struct.error:  # cut off
        pass
    return pages


def tiff_page(data: bytes, offset: int) -> bytes:
    """Make a TIFF whose first page is the one whose directory is at an offset."""
    order, offset_type, _, first = _FORMATS[bytes(data[:4])]
    start = struct.pack(order + offset_type, offset)
    return data[:first] + start + data[first + len(start) :]


def _entry_size(count_type: str) -> int:
    return 12 if count_type == "H" else 20


def _subfile_type(data: bytes, offset: int, order: str, count_type: str) -> int:
    """Read NewSubfileType; 0 where there is none. Tags are in ascending order, and this is the smallest in use."""
    start = offset + struct.calcsize("=" + count_type)
    tag, _ = struct.unpack_from(order + "HH", data, start)
    if tag != _NEW_SUBFILE_TYPE:
        return 0
    value_offset = start + _entry_size(count_type) - (4 if count_type == "H" else 8)
    return struct.unpack_from(order + "I", data, value_offset)[0]
