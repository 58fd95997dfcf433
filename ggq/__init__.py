"""ggq: a GGUF converter and inference runtime in pure Python."""

__version__ = "0.1.0"
