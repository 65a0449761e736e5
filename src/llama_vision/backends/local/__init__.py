"""The model on this machine, with the same protocol as every hosted one."""

from llama_vision.backends.local.backend import LocalBackend

__all__ = ["LocalBackend"]
