"""What the encoders of lattice types share: room for the codes they find, and how lanes fill it.

It knows no search.
"""

import numpy as np
from numba import float32, int32, int64, uint16

from ggq.errors import UsageError
from ggq.jit import njit
from ggq.quants.encoders.search import at, clamp, full, nearest_int
from ggq.quants.encoders.slabs import LANES, contiguous, place
from ggq.quants.lattices import LatticeCodes
from ggq.simd import i32x16, load, splat, store, zeros

N = 256


def fill(kernel, kind, x, importance, near, n_codes, n_groups, settings) -> LatticeCodes:
    """Return what ``kernel`` finds in float32 rows; ``near`` are the lattice's neighbours.

    The kernel gets the addresses of x and importance (0: none), the bytes from one row of
    importance to the next, rows, n, the addresses of d, codes, signs and scales, those of
    ``near``, and ``settings``. UsageError: importance is needed, or does not fit.
    """
    x, importance = contiguous(x, importance)
    if importance is None and kind.needs_importance:
        raise UsageError(f"{kind.name} cannot be written without importance")
    shape = len(x), kind.row_bytes(x.shape[1]) // kind.block_bytes
    found = LatticeCodes(
        np.empty(shape, np.float32),
        np.empty((*shape, n_codes), np.uint16),
        np.empty((*shape, N // 8), np.uint8),
        np.empty((*shape, n_groups), np.uint8),
    )
    if x.size:
        targets = (getattr(found, k).ctypes.data for k in ("d", "codes", "signs", "scales"))
        addresses = (*targets, *near.addresses)
        kernel(x.ctypes.data, *place(importance), *x.shape, *addresses, *settings)
    return found


@njit
def round_scales(groups, n, unit, top):
    """Replace scales by their codes 0 .. ``top`` as integers: unit * (2 code + 1) is the scale."""
    inverse = full(np.float32(1)) / unit
    half, one = full(np.float32(0.5)), full(np.float32(1))
    for i in range(n):
        level = nearest_int(half * (inverse * at(groups, i) - one))
        store(groups + 64 * i, clamp(level, zeros(i32x16), splat(top, i32x16)))


@njit
def put_codes(block, last, targets, code_of, units, words, n_codes, bits, levels, n_groups):
    """Store what lies in lanes (units float32, else integers) behind ``targets``, block by block.

    Lane i holds block ``block`` + i, lanes beyond ``last`` hold it again.
    """
    d, codes, signs, scales = targets
    for lane in range(LANES):
        here, at_block = 4 * lane, min(block + lane, last)
        store(d + 4 * at_block, load(units + here, float32))
        for i in range(n_codes):
            word = int64(load(words + 64 * i + here, int32))
            store(codes + 2 * (n_codes * at_block + i), load(code_of + 2 * word, uint16))
        for i in range(N // 8):
            store(signs + N // 8 * at_block + i, np.uint8(load(bits + 64 * i + here, int32)))
        for i in range(n_groups):
            store(scales + n_groups * at_block + i, np.uint8(load(levels + 64 * i + here, int32)))
