"""One file per layout of a checkpoint; ``TYPES`` are what ``--type`` calls it."""
