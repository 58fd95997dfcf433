"""One file per kind of grid; ``GRID`` is its class."""
