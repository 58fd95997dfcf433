"""Makes a teacher with full-precision weights from a quantized GGUF: each weight within its cell.

    python benchmarks/dither.py model.Q4_1.gguf teacher.f32.gguf

A dequantized file is no teacher for measuring quantization: its weights lie on the grid that is to
be judged, some types would be lossless. Here each weight moves, evenly distributed, by at most half
a step of its own grid. The model is a little worse for it, and as real as before.
"""

import sys

import numpy as np

from ggq import quants
from ggq.gguf import GGUFWriter, open_gguf, spec

SKIP = ("general.file_type", "general.quantization_version")


def dithered(kind: quants.QuantType, blocks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return float32 (rows, n): the blocks' values, each moved within its step."""
    values = kind.dequantize(blocks)
    if not hasattr(kind, "grid"):  # floats have no steps
        return values
    params, _ = kind.unpack(blocks)
    moves = rng.random(values.shape, np.float32) - np.float32(0.5)
    return values + kind.grid(params).scale * moves


def write(source: str, out: str) -> None:
    """Write the F32 file."""
    rng = np.random.default_rng(0)
    with open_gguf(source) as file, GGUFWriter(out, force=True) as writer:
        writer.copy_metadata(file.metadata, skip=SKIP)
        writer.add("general.file_type", 0, spec.U32)
        for name, tensor in file.tensors.items():
            writer.add_tensor(name, tensor.shape, spec.TYPE_IDS["F32"])
        writer.begin()
        for name, tensor in file.tensors.items():
            kind = quants.get(spec.type_name(tensor.type_id))
            rows = dithered(kind, file.data(name), rng)
            writer.write(name, rows.view(np.uint8))
        writer.finish()


if __name__ == "__main__":
    write(*sys.argv[1:3])
