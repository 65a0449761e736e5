"""The command line: `llama-vision ask` and `llama-vision providers`."""

from llama_vision.cli.main import main

__all__ = ["main"]
