"""Runs the kernel tests for NEON on any machine: cross-compiled kernels under qemu's emulator.

    GGQ_ISA=neon GGQ_CROSS=1 python -m tests.tools.neon_check [--sample] [Q4_K ...]

numba lowers the kernels for an AArch64 target machine and never loads them here; Debian's cross
compiler links them with a small server that tests.kernelcheck calls instead of a kernel.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np

TRIPLE = "aarch64-unknown-linux-gnu"
llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
llvm.get_process_triple = lambda: TRIPLE

from ggq import quants  # noqa: E402
from ggq.quants.kernels import abi  # noqa: E402
from ggq.simd import isa  # noqa: E402
from tests import kernelcheck  # noqa: E402

COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
_SERVER = Path(__file__).with_name("neon_server.c")


def _machine():
    cpu, features = isa.SET.cpu, isa.SET.features
    target = llvm.Target.from_triple(TRIPLE)
    return target.create_target_machine(cpu=cpu, features=features, opt=3, reloc="pic")


def build(names: list[tuple[str, str]], folder: Path) -> Path:
    """Compile kernels (type, form) and link them with the server; return the program."""
    machine, symbols, objects = _machine(), [], []
    for name, form in names:
        kernel = getattr(quants.get(name).matmul(), form)
        if form == "decode" and name not in ("F32", "F16", "BF16"):
            assembly = kernel.module.assembly(machine)
            assert re.search(rf"\b{isa.SET.dot}\b", assembly), f"{name}: no dot products"
        symbols.append(f"{name}_{form}")
        objects.append(folder / f"{symbols[-1]}.o")
        objects[-1].write_bytes(kernel.module.object(machine, symbols[-1]))
    table = "".join(
        f'extern void k{i}(long, long, long) __asm__("{s}");\n' for i, s in enumerate(symbols)
    )
    table += "void *const kernels[] = {" + ", ".join(f"k{i}" for i in range(len(symbols))) + "};\n"
    (folder / "table.c").write_text(table)
    program = folder / "server"
    command = [COMPILER, "-O1", "-static", "-o", program, _SERVER, folder / "table.c", *objects]
    subprocess.run([*command, "-lm"], check=True)
    return program


class Remote:
    """A kernel in the emulated machine with the interface of a compiled one."""

    def __init__(self, process, number: int, form: str):
        self._process, self._number, self._form = process, number, form

    def ctypes(self, address: int, first: int, last: int) -> None:
        """Send the argument block's arrays, run items [first, last), fetch the outputs."""
        slot = (ctypes.c_int64 * (abi.MATMUL_BYTES // 8)).from_address(address)
        weights, row_bytes, n_rows, n_cols, source, step, out, out_step, bias, residual, state = (
            slot
        )
        rows = self._form == "dequantize"
        tokens = last if rows else ctypes.c_int64.from_address(state).value
        sizes = [tokens * (8 if rows else step), tokens * out_step]
        sizes += [4 * -(-n_rows // 16) * 16 if bias else 0, sizes[1] if residual else 0]
        request = [self._number, first, last, *sizes, row_bytes, n_rows, n_cols, step, out_step]
        pipe = self._process.stdin
        pipe.write(np.array([*request, tokens], np.int64).tobytes())
        pipe.write(ctypes.string_at(weights, row_bytes * n_rows))
        for array, size in ((source, sizes[0]), (bias, sizes[2]), (residual, sizes[3])):
            pipe.write(ctypes.string_at(array, size))
        pipe.flush()
        answer = self._process.stdout.read(sizes[1])
        if len(answer) != sizes[1]:
            raise RuntimeError(f"the emulated kernel died: {self._process.wait()}")
        ctypes.memmove(out, answer, sizes[1])


def main() -> None:
    """Check the kernels and write the worst error."""
    names = [
        (kind.name, form)
        for kind in kernelcheck.wanted_types(sys.argv)
        for form in kernelcheck.forms(kind, sys.argv)
    ]
    with tempfile.TemporaryDirectory() as folder:
        program = build(names, Path(folder))
        pipe = subprocess.PIPE
        with subprocess.Popen(
            [EMULATOR, "-cpu", "max", program], stdin=pipe, stdout=pipe
        ) as server:
            kernels = {key: Remote(server, i, key[1]) for i, key in enumerate(names)}
            kernelcheck.compiled = lambda name, form: kernels[name, form]
            kernelcheck.main()
            server.stdin.close()


if __name__ == "__main__":
    main()
