"""Displays replies, images and providers in a notebook; in a terminal, the same as plain text."""

from llama_vision.jupyter.display import show
from llama_vision.jupyter.displayed_reply import DisplayedReply
from llama_vision.jupyter.image_grid import ImageGrid, show_images
from llama_vision.jupyter.pages import show_contact_sheet, show_pages
from llama_vision.jupyter.sources import Source
from llama_vision.jupyter.tables import Table, show_answers, show_providers

__all__ = [
    "DisplayedReply",
    "ImageGrid",
    "Source",
    "Table",
    "show",
    "show_answers",
    "show_contact_sheet",
    "show_images",
    "show_pages",
    "show_providers",
]
