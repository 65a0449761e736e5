"""How the tiny model that comes with the package was made: `make train`, and `make evaluate` for what it can."""
