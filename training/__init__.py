"""Training of the tiny model that comes with the package: `make train`, and `make evaluate` for its accuracy."""
