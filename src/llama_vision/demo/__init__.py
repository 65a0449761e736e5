"""Sample images, and a demonstration: `python -m llama_vision.demo`."""

from pathlib import Path

_FOLDER = Path(__file__).parent / "images"

SAMPLE_IMAGES: dict[str, Path] = {path.stem: path for path in sorted(_FOLDER.glob("*.png"))}
"""Small drawn images of the kind the tiny model was trained on, by name: `circle`, `shapes`, `sign`."""
