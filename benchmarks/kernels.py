"""Kernels alone, by block type and instruction set: rates, the vector units' limit, the share.

    python benchmarks/kernels.py [--types Q4_K,Q8_0] [--sets avx2,avx512] [--tokens 256] [-r 30]

One thread, random weights of ROWS x COLUMNS that stay in the L2 cache, the best of many calls. The
limit is that of the vector units for the arithmetic of one kernel without any load or store:
vector operations counted in ``operations``, over the ports that take them (three for registers of
256 bits, two for 512, as in Intel's cores since Skylake) and the clock, which a chain of dependent
additions beside vector multiplications measures (processors slow down for these). "decode" is of
one token: its limit is memory, so GB/s of weights are told.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]
ROWS, COLUMNS = 256, 2048
_CHAIN, _LINKS = 1 << 14, 64


def operations(largest: int, centred: bool, scales: int, dot: str) -> int:
    """Return the vector operations of 32 columns for one register of sums (sums.py's arithmetic).

    ``scales``: how many there are in these columns, 1 or 2; ``dot``: the set's instruction.
    """
    from ggq.simd.multiply_add import terms

    floats = scales * (1 if centred else 2) + (scales - 1) + 1
    if dot == "vpdpbusd":
        return 8 + floats
    if largest > 127:  # 16 products of words, each added to a sum of 32 bits
        return 32 + floats
    products = 8
    sums = products // min(terms(largest), products // scales)
    return 2 * products + sums + floats


def clock() -> float:
    """Return the cycles per second of this thread while it multiplies vectors.

    Each operation of a chain takes a cycle; the multiplications beside it take fewer.
    """
    from numba import int64, njit

    from ggq.simd import bitcast, dot4, i8x64, i32x16, lane, splat, u8x64

    @njit
    def chain(n, step):
        x, a = int64(1), splat(step, i32x16)
        b, c, d = a, a, a
        for _ in range(n):
            for _ in range(_LINKS // 2):
                x = (x + step) ^ n
            a = dot4(a, bitcast(b, u8x64), bitcast(a, i8x64))
            b = dot4(b, bitcast(c, u8x64), bitcast(b, i8x64))
            c = dot4(c, bitcast(d, u8x64), bitcast(c, i8x64))
            d = dot4(d, bitcast(a, u8x64), bitcast(d, i8x64))
        return x + lane(a + b + c + d, 0)

    return _CHAIN * _LINKS / _best(lambda: chain(_CHAIN, 3), 20)


def _best(call, repeats: int) -> float:
    call()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


def measure(names: list[str], tokens: int, repeats: int) -> None:
    """Print a row per type under this process's instruction set."""
    from ggq import quants
    from ggq.simd import isa
    from tests import kernelcheck

    cycles, rng = clock(), np.random.default_rng(0)
    ports = {8: 3, 16: 2}.get(isa.SET.lanes)
    sys.stdout.write(f"{os.environ.get('GGQ_ISA') or 'default'}: {cycles / 1e9:.2f} GHz\n")
    for name in names:
        kind = quants.get(name)
        kernels = kind.matmul()
        blocks, _ = kernelcheck.weights(kind, ROWS, COLUMNS, rng)
        x = rng.standard_normal((tokens, COLUMNS)).astype(np.float32)
        source = kernelcheck.quantized(x)[0] if kernels.activations == "q8" else x
        took = {}
        for form, n in (("decode", 1), ("prefill", tokens)):
            call, kept = _bound(getattr(kernels, form), blocks, source, n)
            took[form] = _best(call, repeats * (20 if n == 1 else 1))
            del kept
        rate = ROWS * COLUMNS * tokens / took["prefill"] / 1e9
        text = f"{name:8s} decode {blocks.nbytes / took['decode'] / 1e9:6.2f} GB/s"
        text += f"  prefill {rate:6.1f} GMAC/s"
        if ports and kernels.sums:
            limit = _limit(isa.SET, kernels.sums) * ports * cycles / 1e9
            text += f"  limit {limit:6.1f}  reached {100 * rate / limit:3.0f} %"
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def _limit(isa_set, sums) -> float:
    """Return the multiply-adds per vector operation."""
    return 32 * isa_set.lanes / operations(*sums, isa_set.dot)


def _bound(kernel, blocks, source, tokens):
    """Return a call of a kernel on all rows, and what must live meanwhile."""
    out, state = np.zeros((tokens, ROWS), np.float32), np.array([tokens], np.int64)
    args = [blocks.ctypes.data, blocks.shape[1], ROWS, COLUMNS, source.ctypes.data]
    args += [source.strides[0], out.ctypes.data, out.strides[0], 0, 0, state.ctypes.data]
    block = np.array(args, np.int64)
    run, address = kernel.ctypes, block.ctypes.data
    step = 8  # groups of a chunk, as the runtime hands them out

    def call():
        for first in range(0, ROWS // 16, step):
            run(address, first, first + step)

    return call, (out, state, block)


def main() -> None:
    """Measure under each set in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--types", default="Q4_K,Q5_K,Q6_K,Q8_0,Q4_0,Q2_K,Q3_K,IQ4_XS")
    parser.add_argument("--sets", default="")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("-r", "--repeats", type=int, default=30)
    given = parser.parse_args()
    if not given.sets:
        measure(given.types.split(","), given.tokens, given.repeats)
        return
    for name in given.sets.split(","):
        command = [sys.executable, __file__, "--types", given.types]
        command += ["--tokens", str(given.tokens), "-r", str(given.repeats)]
        subprocess.run(command, env={**os.environ, "GGQ_ISA": name}, check=True)


if __name__ == "__main__":
    main()
