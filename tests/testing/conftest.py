"""As users import it."""

from llama_vision.testing.fixtures import llama_vision_server

__all__ = ["llama_vision_server"]
