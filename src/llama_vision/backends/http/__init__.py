"""Hosted models and servers, over HTTP."""
