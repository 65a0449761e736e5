"""PDFs made by hand, so that tests know what is in them: text, photographs, passwords, and what an attacker would write."""

import hashlib
import struct
import zlib

_PAD = bytes.fromhex("28bf4e5e4e758a4164004e56fffa01082e2e00b6d0683e802f0ca9fe6453697a")
_ID = b"0123456789abcdef"


def stream(data, entries=b""):
    return b"<<%s/Length %d>>stream\n%s\nendstream" % (entries, len(data), data)


def assemble(objects, trailer=b""):
    """Write the objects, numbered from 1, with their cross-reference table; the first is the catalog."""
    out, offsets = b"%PDF-1.7\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    end = b"trailer<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF\n"
    return out + head + table + end % (len(objects) + 1, trailer, len(out))


def pdf_of(*contents, size=(595, 842), password=None, user_page=b""):
    """Make a PDF with a page for each content stream, with Helvetica as /F."""
    key = _encryption_key(password) if password is not None else None
    kids = b" ".join(b"%d 0 R" % (3 + 2 * index) for index in range(len(contents)))
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[%s]/Count %d>>" % (kids, len(contents))]
    for index, content in enumerate(contents):
        number = 4 + 2 * index
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 %g %g]%s/Contents %d 0 R/Resources<</Font<</F "
            b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>>>" % (*size, user_page, number)
        )
        objects.append(stream(content if key is None else _encrypt(key, number, content)))
    if key is None:
        return assemble(objects)
    owner, user = _owner_entry(password), _rc4(key, _PAD)
    encrypt = b"/Encrypt<</Filter/Standard/V 1/R 2/P -4/O<%s>/U<%s>>>/ID[<%s><%s>]"
    ids = _ID.hex().encode()
    return assemble(objects, encrypt % (owner.hex().encode(), user.hex().encode(), ids, ids))


def text_content(*lines, font_size=20, left=60, top=760):
    shown = b" ".join(b"(%s) Tj 0 -%g Td" % (line.encode("latin-1"), 1.5 * font_size) for line in lines)
    return b"BT /F %g Tf %g %g Td %s ET" % (font_size, left, top, shown)


def text_pdf(*pages, **options):
    """Make a PDF with a page for each text."""
    return pdf_of(*[text_content(page) for page in pages], **options)


def color_content(red, green, blue):
    return b"%g %g %g rg 0 0 10000 10000 re f" % (red / 255, green / 255, blue / 255)


def image_pdf(width, height, rows, *, bits=8, space=b"/DeviceRGB", size=(595, 842)):
    """Make a PDF whose only page shows an image, of rows of bytes that are compressed as they come."""
    packer = zlib.compressobj(9)
    data = b"".join(map(packer.compress, rows)) + packer.flush()
    entries = (
        b"/Type/XObject/Subtype/Image/Width %d/Height %d/BitsPerComponent %d/ColorSpace%s/Filter/FlateDecode"
    )
    return assemble(
        [
            b"<</Type/Catalog/Pages 2 0 R>>",
            b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 %g %g]/Contents 4 0 R/Resources<</XObject<</I 5 0 R>>>>>>"
            % size,
            stream(b"%g 0 0 %g 0 0 cm /I Do" % size),
            stream(data, entries % (width, height, bits, space)),
        ]
    )


def nested_forms_pdf(depth, fan):
    """Make a PDF whose page draws a form that draws `fan` forms, and so on: `fan ** depth` squares."""
    forms = [
        stream(
            b" ".join([b"/X Do"] * fan),
            b"/Type/XObject/Subtype/Form/BBox[0 0 99 99]/Resources<</XObject<</X %d 0 R>>>>" % (6 + level),
        )
        for level in range(depth)
    ]
    last = stream(b"0 0 9 9 re f", b"/Type/XObject/Subtype/Form/BBox[0 0 99 99]")
    return assemble(
        [
            b"<</Type/Catalog/Pages 2 0 R>>",
            b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]/Contents 4 0 R/Resources<</XObject<</X 5 0 R>>>>>>",
            stream(b"/X Do"),
            *forms,
            last,
        ]
    )


def claiming_pdf(count):
    """Make a PDF that claims so many pages, and has one."""
    return text_pdf("one").replace(b"/Count 1", b"/Count %d" % count)


def flate_bomb_pdf(length):
    """Make a PDF whose content stream unpacks to so many bytes."""
    packer = zlib.compressobj(9)
    piece = b"0 0 m 1 1 l S " * 4096
    data = b"".join(packer.compress(piece) for _ in range(length // len(piece))) + packer.flush()
    return assemble(
        [
            b"<</Type/Catalog/Pages 2 0 R>>",
            b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]/Contents 4 0 R>>",
            stream(data, b"/Filter/FlateDecode"),
        ]
    )


def _owner_entry(password):
    padded = (password.encode() + _PAD)[:32]
    return _rc4(hashlib.md5(padded, usedforsecurity=False).digest()[:5], padded)


def _encryption_key(password):
    """The key of the standard security handler, revision 2 (RC4, 40 bits): PDF 32000-1, 7.6.3.3."""
    padded = (password.encode() + _PAD)[:32]
    digest = hashlib.md5(padded + _owner_entry(password) + struct.pack("<i", -4) + _ID, usedforsecurity=False)
    return digest.digest()[:5]


def _encrypt(key, number, data):
    salted = key + struct.pack("<I", number)[:3] + b"\0\0"
    return _rc4(hashlib.md5(salted, usedforsecurity=False).digest()[:10], data)


def _rc4(key, data):
    state, j = list(range(256)), 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    i = j = 0
    out = bytearray()
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


def scan_pdf(*pages):
    """Make a PDF of scans, each a picture with the text that a reader of scans found on it, which is invisible."""
    kids = b" ".join(b"%d 0 R" % (3 + 3 * index) for index in range(len(pages)))
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[%s]/Count %d>>" % (kids, len(pages))]
    for index, (image, text) in enumerate(pages):
        number, (width, height) = 3 + 3 * index, image.size
        lines = b" T* ".join(b"(%s) Tj" % line.encode("latin-1") for line in text.splitlines())
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 %d %d]/Contents %d 0 R/Resources<</XObject<</I %d 0 R>>/Font<</F "
            b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>>>" % (width, height, number + 1, number + 2)
        )
        shown = b"q %d 0 0 %d 0 0 cm /I Do Q BT 3 Tr /F 9 Tf 11 TL 4 %d Td %s ET"
        objects.append(stream(shown % (width, height, height - 12, lines)))
        entries = b"/Type/XObject/Subtype/Image/Width %d/Height %d/BitsPerComponent 8/ColorSpace/DeviceRGB/Filter/FlateDecode"
        objects.append(stream(zlib.compress(image.convert("RGB").tobytes()), entries % (width, height)))
    return assemble(objects)
