"""`show_pages` and `show_contact_sheet`: what a model is shown of a document, and of several images at once."""

from collections.abc import Iterable
from typing import cast

from llama_vision.images import DocumentSource, ImageSource, Page, image_from_any, pages
from llama_vision.images.contact_sheet import contact_sheet
from llama_vision.jupyter.image_grid import show_images


def show_pages(
    source: "DocumentSource | Page | Iterable[Page]",
    numbers: str | int | Iterable[int] | None = None,
    *,
    password: str | None = None,
    max_pages: int | None = 20,
    columns: int | None = None,
    width: int = 200,
    notebook: bool | None = None,
) -> None:
    """Display pages of a PDF or a TIFF side by side, as a model is shown them.

        show_pages("report.pdf")
        show_pages("report.pdf", "2-4", width=400)

    Args:
        source: The document, as `llama_vision.pages` takes it, or pages.
        numbers: Which ones, from 1: `"2-4"`, `"1,3"`, `3`, `[1, 3]`; None for all. Of given pages all are displayed.
        password: That of an encrypted PDF.
        max_pages: How many; more are refused. None for no limit.
        columns: Pages per row; None fits as many as there is room for.
        width: Of each on the page, in CSS pixels.
        notebook: Whether this is a notebook; None detects it. Elsewhere a line is printed for each page.

    Raises:
        DocumentError: It is no document, is damaged or encrypted, or has not these pages.
        MissingDependencyError: pypdfium2 is not installed, or IPython where `notebook` is True.
    """
    if isinstance(source, Page):
        found = [source]
    elif isinstance(source, (list, tuple)):
        found = list(cast("Iterable[Page]", source))
    else:
        found = pages(cast("DocumentSource", source), numbers, password=password, max_pages=max_pages)
    show_images(
        [page.image for page in found],
        [page.label for page in found],
        columns=columns,
        width=width,
        notebook=notebook,
    )


def show_contact_sheet(
    images: "Iterable[ImageSource | Page]", *, width: int = 560, notebook: bool | None = None
) -> None:
    """Display the sheet that a provider of one image a request is sent with `image_policy="grid"`.

    Args:
        images: The images, at most 100, and no URLs.
        width: Of the sheet on the page, in CSS pixels.
        notebook: Whether this is a notebook; None detects it. Elsewhere a line is printed.

    Raises:
        ImageError: There are none or too many, or one can't be read.
    """
    read = [one.image if isinstance(one, Page) else image_from_any(one) for one in images]
    show_images(
        [contact_sheet(read)], [f"contact sheet of {len(read)} images"], width=width, notebook=notebook
    )
