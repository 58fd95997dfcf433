"""Codes, scales and norms by gradient descent: torch modules on exactly the stored values."""
