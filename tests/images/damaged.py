"""200 files as they should not be: truncated, mutated, spliced, and made to fill memory. Run as a script, it opens them all.

Each is given to what opens files of users: `pages` and `prepare_image`. The script prints a line of JSON: how each ended, the
longest time, and the peak memory of this process and of the one that renders PDFs.
"""

import io
import json
import random
import struct
import time
import zlib
from pathlib import Path

import PIL.Image

from llama_vision import pages
from llama_vision.core.errors import ImageError
from llama_vision.images import image_from_any
from llama_vision.images.constraints import ImageConstraints
from llama_vision.images.prepare import prepare_image
from tests.images.images import encoded, sketch
from tests.pdfs import (
    claiming_pdf,
    flate_bomb_pdf,
    image_pdf,
    nested_forms_pdf,
    pdf_of,
    text_content,
    text_pdf,
)

COUNT = 200


def tiff_of(*images):
    buffer = io.BytesIO()
    images[0].save(buffer, "TIFF", save_all=True, append_images=images[1:])
    return buffer.getvalue()


def originals():
    noise = PIL.Image.frombytes("RGB", (100, 80), random.Random(18).randbytes(24_000))
    chess = [bytes(range(256)) * 3 for _ in range(256)]
    return {
        "text.pdf": text_pdf(*[f"Page {number}" for number in range(3)]),
        "lines.pdf": pdf_of(text_content(*[f"Line {number} of many" for number in range(40)], font_size=8)),
        "photo.pdf": image_pdf(256, 256, chess),
        "secret.pdf": text_pdf("secret", password="pw"),
        "pages.tiff": tiff_of(sketch(), sketch(40, 60), sketch(300, 20)),
        "noise.jpg": encoded(noise, "JPEG"),
        "noise.png": encoded(noise, "PNG"),
        "sketch.gif": encoded(sketch(), "GIF"),
        "sketch.webp": encoded(sketch(), "WEBP"),
        "sketch.bmp": encoded(sketch(), "BMP"),
    }


def png_claiming(width, height, color_type=6):
    """Write a PNG of one colour that unpacks to all of its pixels."""
    channels = {0: 1, 2: 3, 6: 4}[color_type]
    packer = zlib.compressobj(9)
    row = bytes(1 + width * channels)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def bombs():
    huge_gif = b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\x80\0\0" + bytes(6) + b","
    ring = bytearray(tiff_of(sketch(), sketch(40, 60)))
    (first,) = struct.unpack_from("<I", ring, 4)
    (entries,) = struct.unpack_from("<H", ring, first)
    struct.pack_into("<I", ring, first + 2 + 12 * entries, first)  # its next page is itself
    return {
        "a million pages.pdf": claiming_pdf(1_000_000),
        "2 billion pages.pdf": claiming_pdf(2**31 - 1),
        "200 inches.pdf": text_pdf("wide", size=(14_400, 14_400)),
        "a strip.pdf": text_pdf("strip", size=(14_400, 1)),
        "a strip upright.pdf": text_pdf("strip", size=(1, 14_400)),
        "nothing.pdf": text_pdf("none", size=(0, 0)),
        "forms in forms.pdf": nested_forms_pdf(4, 100),
        "endless forms.pdf": nested_forms_pdf(9, 1000),
        "a form in itself.pdf": nested_forms_pdf(1, 1).replace(b"/X 6 0 R", b"/X 5 0 R"),
        "2 GB of lines.pdf": flate_bomb_pdf(2_000_000_000),
        "a photo of 2.7 GB.pdf": image_pdf(30_000, 30_000, (bytes(90_000) for _ in range(30_000))),
        "black and white, 3.6 gigapixels.pdf": image_pdf(
            60_000, 60_000, (bytes(7500) for _ in range(60_000)), bits=1, space=b"/DeviceGray"
        ),
        "a million pages of kids.pdf": text_pdf("x").replace(
            b"/Kids[3 0 R]", b"/Kids[" + b"3 0 R " * 100_000 + b"]"
        ),
        "parents in a ring.pdf": text_pdf("x").replace(b"/Kids[3 0 R]", b"/Kids[2 0 R]"),
        "10000 x 10000.png": png_claiming(10_000, 10_000),
        "8600 x 8600.png": png_claiming(8_600, 8_600),
        "13000 x 13000.png": png_claiming(13_000, 13_000),
        "13300 x 13300 of one colour.png": png_claiming(13_300, 13_300, 2),
        "13300 x 13300.png": png_claiming(13_300, 13_300, 0),
        "30000 x 30000.png": png_claiming(30_000, 30_000, 0),
        "65535 x 65535.gif": huge_gif + bytes(20),
        "pages in a ring.tiff": bytes(ring),
    }


def spoiled_files(count):
    """Truncate, mutate, cut and splice; the same each time."""
    dice = random.Random(18)
    files = []
    whole = list(originals().items())
    while len(files) < count:
        name, data = whole[len(files) % len(whole)]
        spoiled = bytearray(data)
        match len(files) // len(whole) % 4:
            case 0:
                spoiled = spoiled[: dice.randrange(len(data))]
            case 1:
                for _ in range(dice.randint(1, 40)):
                    spoiled[dice.randrange(len(data))] = dice.randrange(256)
            case 2:
                start = dice.randrange(len(data))
                del spoiled[start : start + dice.randint(1, 400)]
            case _:
                other = dice.choice(whole)[1]
                start = dice.randrange(min(len(data), len(other)))
                spoiled[start:] = other[start:]
        files.append((f"{len(files)} {name}", bytes(spoiled)))
    return files


def open_as_users_do(data):
    """Show a file to a model: page by page, and as an image."""
    shown = []
    for way in (
        lambda: [page.image for page in pages(data, password="pw")],
        lambda: [prepare_image(image_from_any(data), ImageConstraints())],
    ):
        try:
            shown += [PIL.Image.open(io.BytesIO(image.data)).size for image in way()]
        except ImageError:
            continue
    return "shown" if shown else "refused"


def peak_memory(process="self"):
    """The most memory a process has had, in MB; Linux only."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))


def main():
    import resource

    outcomes, times = {}, {}
    worst = list(bombs().items())
    for name, data in worst + spoiled_files(COUNT - len(worst)):
        began = time.monotonic()
        outcomes[name] = open_as_users_do(data)
        times[name] = round(time.monotonic() - began, 2)
    slowest = max(times, key=times.get)
    print(
        json.dumps(
            {
                "files": len(outcomes),
                "shown": sum(outcome == "shown" for outcome in outcomes.values()),
                "slowest": [slowest, times[slowest]],
                "seconds": round(sum(times.values()), 1),
                "peak_mb": peak_memory(),
                "peak_renderer_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
                "outcomes": outcomes,
            }
        )
    )


if __name__ == "__main__":
    main()
