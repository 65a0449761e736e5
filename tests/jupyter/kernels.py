"""Cells run in a real kernel, and what a front end gets to see of it."""

import nbformat
from nbclient import NotebookClient

from tests.notebooks.running import executed


def run_cells(folder, *sources):
    """Run cells one after the other.

    Returns the outputs of each as a notebook would keep them, and of each the kinds of messages that the front end got.
    """
    kinds = [[] for _ in sources]

    class Listening(NotebookClient):
        def process_message(self, msg, cell, cell_index):
            kinds[cell_index].append(msg["msg_type"])
            return super().process_message(msg, cell, cell_index)

    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells)
    return [cell.outputs for cell in executed(notebook, folder, Listening).cells], kinds
