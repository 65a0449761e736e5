"""The gallery on disk and event loops, as the tests of LlamaIndex's parts have them."""

from tests.llamaindex.conftest import folder, own_loop, paths

__all__ = ["folder", "own_loop", "paths"]
