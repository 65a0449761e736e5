"""Llama 3.2 Vision on this machine: a continuous batching engine behind the protocol of every backend."""

from llama_vision.backends.local.backend import LocalBackend
from llama_vision.backends.local.config import LocalSettings, parse_local_settings

__all__ = ["LocalBackend", "LocalSettings", "parse_local_settings"]
