"""The GGUF file format: reading, checking, writing; knows nothing of decoding or running."""

from ggq.gguf.header import TensorInfo
from ggq.gguf.metadata import Metadata, StringArray
from ggq.gguf.reader import GGUFFile, open_gguf

__all__ = ["GGUFFile", "Metadata", "StringArray", "TensorInfo", "open_gguf"]
