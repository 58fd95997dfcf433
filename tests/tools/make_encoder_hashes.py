"""Write tests/data/encoder_hashes.json with llama.cpp's own encoder, ggml_quantize_chunk.

Needs llama-cpp-python 0.3.36 on x86-64; run as python tests/tools/make_encoder_hashes.py
"""

import ctypes
import hashlib
import json
import sys
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parents[1]
HASHES = TESTS / "data/encoder_hashes.json"


class Ggml:
    """llama.cpp's block encoder from the library that llama-cpp-python brings."""

    def __init__(self):
        import llama_cpp

        folder = Path(llama_cpp.__file__).parent / "lib"
        found = sorted(p for p in folder.iterdir() if "ggml-base" in p.name)
        self.library = ctypes.CDLL(str(found[0]))
        self.library.ggml_quantize_chunk.restype = ctypes.c_size_t
        pointer, wide = ctypes.c_void_p, ctypes.c_int64
        self.library.ggml_quantize_chunk.argtypes = [
            *(ctypes.c_int, pointer, pointer, wide, wide, wide, pointer)
        ]

    def dequantize(self, kind, blocks):
        """Return float32 (rows, n) of blocks."""
        blocks = np.ascontiguousarray(blocks)
        values = np.empty(
            (len(blocks), blocks.shape[1] // kind.block_bytes * kind.block_size), "f4"
        )
        decode = getattr(self.library, f"dequantize_row_{kind.name.lower()}")
        decode.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
        decode(blocks.ctypes.data, values.ctypes.data, values.size)
        return values

    def quantize(self, kind, x, importance=None):
        """Return the blocks of float32 ``x`` (rows, n); ``importance`` (n,) or None."""
        x = np.ascontiguousarray(x, np.float32)
        blocks = np.empty((len(x), kind.row_bytes(x.shape[1])), np.uint8)
        weights = None if importance is None else importance.ctypes.data
        self.library.ggml_quantize_init(kind.ggml_id)
        args = (kind.ggml_id, x.ctypes.data, blocks.ctypes.data, 0, *x.shape, weights)
        assert self.library.ggml_quantize_chunk(*args) == blocks.nbytes
        return blocks


def written():
    """Return the block types that ggq writes."""
    from ggq import quants
    from ggq.quants.readonly import ReadOnlyType

    return [t for t in quants.all() if t.block_size > 1 and not isinstance(t, ReadOnlyType)]


def digests(kinds, quantize):
    """Return "TYPE case with" or "... without" importance -> SHA-256 of the pinned cases."""
    from encoder_inputs import pinned_cases, tame

    found = {}
    for kind in kinds:
        for case, (x, importance) in pinned_cases().items():
            for label, weights in (("without", None), ("with", importance)):
                if weights is None and kind.needs_importance:
                    continue
                blocks = quantize(kind, tame(kind, x), weights)
                found[f"{kind.name} {case} {label}"] = hashlib.sha256(blocks.tobytes()).hexdigest()
    return found


def main():
    """Write the file."""
    sys.path.insert(0, str(TESTS))
    HASHES.write_text(json.dumps(digests(written(), Ggml().quantize), indent=1) + "\n")


if __name__ == "__main__":
    main()
