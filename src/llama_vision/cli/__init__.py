"""The command line: `llama-vision ask`, `caption`, `providers`, `doctor`, `serve`, `local` and `accept-license`."""

from llama_vision.cli.main import main

__all__ = ["main"]
