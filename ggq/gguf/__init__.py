"""The GGUF file format: reading, checking, writing; knows nothing of decoding or running."""

from ggq.gguf.header import TensorInfo
from ggq.gguf.metadata import Metadata, StringArray
from ggq.gguf.reader import GGUFFile, open_gguf
from ggq.gguf.validate import validate_model
from ggq.gguf.writer import GGUFWriter

__all__ = [
    "GGUFFile",
    "GGUFWriter",
    "Metadata",
    "StringArray",
    "TensorInfo",
    "open_gguf",
    "validate_model",
]
