"""Images to try things with, and a demonstration: `python -m llama_vision.demo`."""

from pathlib import Path

_FOLDER = Path(__file__).parent / "images"

SAMPLE_IMAGES: dict[str, Path] = {path.stem: path for path in sorted(_FOLDER.glob("*.png"))}
"""Small drawn images by name, such as the tiny model knows: `circle`, `shapes`, `sign`."""
