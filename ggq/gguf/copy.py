"""Copies the tensors of an open GGUF file into a writer, unchanged and in slabs.

For splitting, merging and editing metadata; it does not know how to change a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ggq.gguf.header import TensorInfo
from ggq.gguf.reader import GGUFFile
from ggq.gguf.writer import GGUFWriter

SLAB_BYTES = 64 << 20


def slabs(f: GGUFFile, tensor: TensorInfo, slab_bytes: int = SLAB_BYTES) -> Iterator[np.ndarray]:
    """Yield a tensor's data as views of whole rows, about ``slab_bytes`` each."""
    rows, step = f.data(tensor.name), max(1, slab_bytes // tensor.row_bytes)
    for first in range(0, tensor.n_rows, step):
        yield rows[first : first + step]


def copy_tensors(
    f: GGUFFile, writer: GGUFWriter, progress: Callable[[int], None] | None = None
) -> None:
    """Declare and write every tensor of ``f``; ``progress`` is told the bytes of each slab."""
    for tensor in f.tensors.values():
        writer.add_tensor(tensor.name, tensor.shape, tensor.type_id)
    writer.begin()
    for tensor in f.tensors.values():
        for slab in slabs(f, tensor):
            writer.write(tensor.name, slab)
            if progress:
                progress(slab.nbytes)
    f.check_unchanged()
