"""The model on this machine, with the same protocol as every hosted one."""

from llama_vision.backends.local.backend import LocalBackend
from llama_vision.backends.local.config import LocalSettings, parse_local_settings

__all__ = ["LocalBackend", "LocalSettings", "parse_local_settings"]
