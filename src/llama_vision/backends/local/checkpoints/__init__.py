"""Checkpoints of Llama 3.2 Vision, in the kinds that people have: each gives dense weights, one at a time."""
