"""Compiled functions on disk: loaded again without compiling, and told while they compile."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ggq import machine_code, progress

pytestmark = pytest.mark.slow

PROGRAM = """
import sys
from ggq import jit, machine_code
from ggq.simd import INT, load, store
from numba import int64

told = []
machine_code.set_listener(lambda done, total: told.append((done, total)))

def made(factor):
    @jit.kernel()
    def scaled(args, first, last):
        for i in range(first, last):
            at = args.address + 8 * i
            store(at, load(at, int64) * factor)
    return scaled

@jit.kernel(value=INT)
def compares(args, first, last):  # may raise, as numba sees it
    if args.value not in (0, last):
        args.value = 8

@jit.kernel(value=INT)
def looks_up(args, first, last):
    args.value = (7, 8, 9)[args.value % last]  # and here as well

@jit.entry(returns=True)
def both(x, y):
    return x + 2 * y

import numpy as np
kernels = [made(3), made(5), compares, looks_up]
machine_code.make_ready([*kernels, both.function])
a = np.arange(1, 5)
for k in kernels[:2]:
    k.ctypes(a.ctypes.data, 1, 3)
kernels[2].ctypes(a.ctypes.data + 16, 0, 2)
kernels[3].ctypes(a.ctypes.data + 24, 0, 3)
print(a.tolist(), both(1, 20), told, any("module" in vars(k) for k in kernels))
"""


def run_program(cache: Path) -> str:
    program = cache / "program.py"  # numba caches no functions of strings
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(program)],
        env={**os.environ, "GGQ_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_second_process_loads_what_the_first_compiled(tmp_path):
    result = "[1, 30, 8, 8] 41"
    told = [(i, 5) for i in range(6)]
    assert run_program(tmp_path) == f"{result} {told} True"
    assert run_program(tmp_path) == f"{result} [] False"
    files = list(tmp_path.glob("jit/*/*.o"))
    assert len(files) == 5
    files[0].write_bytes(files[0].read_bytes()[:-1])  # damaged: made anew
    files[1].unlink()
    assert run_program(tmp_path) == f"{result} [(0, 2), (1, 2), (2, 2)] True"
    assert run_program(tmp_path) == f"{result} [] False"


def test_a_function_is_named_by_its_place_and_closure():
    def made(value):
        return lambda: value

    def name(function):
        return list(machine_code._parts(function))

    assert name(made(1)) == name(made(1)) != name(made(2))
    assert name(made(made(1))) != name(made(made(2)))
    assert name(made(object())) == name(made(object()))


def test_another_numba_compiles_in_each_process(monkeypatch, tmp_path):
    from ggq import jit, lean

    @jit.kernel()
    def nothing(args, first, last):
        pass

    def differs(*_):
        raise AttributeError("no such internals")

    monkeypatch.setattr(lean, "_Compiler", differs)
    nothing.ctypes(0, 0, 0)
    assert not nothing.path.exists()


def test_code_that_is_tied_to_a_process_is_refused():
    from ggq import jit

    @jit.kernel()
    def prints(args, first, last):
        print(first)  # noqa: T201

    with pytest.raises(AssertionError, match=r"prints calls .*numba_gil_ensure"):
        prints.compiled()


class Terminal(io.TextIOWrapper):
    def isatty(self):
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_compiling_is_told_on_stderr(monkeypatch, terminal):
    raw = io.BytesIO()
    stream = (Terminal if terminal else io.TextIOWrapper)(raw, encoding="ascii")
    monkeypatch.setattr(sys, "stderr", stream)
    for done in range(3):
        progress.show_compiling(done, 2)
    stream.flush()
    shown = raw.getvalue().decode()
    if terminal:
        lines = shown.split("\r")
        assert lines[1:3] == [
            f"compiling kernels for this processor, once: {i} of 2" for i in (0, 1)
        ]
        assert lines[3:] == [" " * len(lines[1]), ""]
    else:
        assert shown == "compiling kernels for this processor, once ...\n"
