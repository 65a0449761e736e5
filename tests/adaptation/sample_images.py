"""Pictures of a given weight or size."""

import io

from PIL import Image as PILImage

from llama_vision.core.messages import Image

ADDRESS = Image(url="https://example.com/a.png")


def of_bytes(count):
    return Image(data=b"x" * count, media_type="image/png")


def of_pixels(width, height, kind="PNG"):
    file = io.BytesIO()
    PILImage.new("RGB", (width, height)).save(file, kind)
    return Image(data=file.getvalue(), media_type=f"image/{kind.lower()}")
