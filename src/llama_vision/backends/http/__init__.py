"""The HTTP backend: hosted models and servers."""
