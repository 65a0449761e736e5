"""Small print survives to the tiles: what the model is shown of a page of 8-point text is what pdfium draws at that size."""

import io
import math

import PIL.Image
import pypdfium2
from PIL import ImageChops, ImageStat

from llama_vision import pages
from llama_vision.images.constraints import ImageConstraints
from llama_vision.images.prepare import prepare_image
from llama_vision.images.tiling import optimal_tile_grid
from llama_vision.testing import ScriptedServer
from tests.pdfs import pdf_of, text_content

LINES = [
    f"{number:02} The quick brown fox jumps over the lazy dog, 0123456789 times or so."
    for number in range(60)
]
PRINT = pdf_of(text_content(*LINES, font_size=8, top=800))
MIN_PSNR = 40.0  # decibels; what most call indistinguishable


def psnr(one, other):
    """Peak signal-to-noise ratio in decibels."""
    squares = ImageStat.Stat(ImageChops.difference(one, other)).sum2
    mean = sum(squares) / (3 * one.width * one.height)
    return math.inf if mean == 0 else 10 * math.log10(255**2 / mean)


def drawn_directly(size):
    document = pypdfium2.PdfDocument(PRINT)
    page = document[0]
    bitmap = page.render(scale=min(size[0] / 595, size[1] / 842) * (1 - 1e-9), rev_byteorder=True)
    image = bitmap.to_pil().convert("RGB")
    page.close()
    document.close()
    return image


def opened(data):
    return PIL.Image.open(io.BytesIO(data)).convert("RGB")


def test_a_page_of_8_points_reaches_the_tiles_as_it_is_drawn():
    (page,) = pages(PRINT)
    shown = opened(page.image.data)
    assert optimal_tile_grid(*shown.size) == (2, 2)
    assert max(shown.size) == 1120
    assert psnr(shown, drawn_directly(shown.size)) == math.inf


def test_it_also_survives_what_is_sent_to_a_provider():
    with ScriptedServer("A page.") as server:
        from langchain_core.messages import HumanMessage
        from langchain_core.messages.content import create_file_block

        from llama_vision.langchain import ChatLlamaVision

        block = create_file_block(base64=_base64(PRINT), mime_type="application/pdf")
        ChatLlamaVision(**server.model_options).invoke([HumanMessage([block, {"type": "text", "text": "?"}])])
        sent = opened(server.requests[0].images[0])
    assert psnr(sent, drawn_directly(sent.size)) > MIN_PSNR


def test_a_resolution_that_does_not_fit_the_tiles_would_lose_it():
    """What users do by hand: 200 dpi, scaled down for the model."""
    document = pypdfium2.PdfDocument(PRINT)
    page = document[0]
    by_hand = page.render(scale=200 / 72, rev_byteorder=True).to_pil().convert("RGB")
    page.close()
    document.close()
    buffer = io.BytesIO()
    by_hand.save(buffer, "JPEG")
    from llama_vision.images import image_from_bytes

    scaled = opened(prepare_image(image_from_bytes(buffer.getvalue()), ImageConstraints()).data)
    assert psnr(scaled, drawn_directly(scaled.size).resize(scaled.size)) < MIN_PSNR


def _base64(data):
    import base64

    return base64.b64encode(data).decode()
