"""Compiling in several processes: helpers take part, and one that dies leaves its work behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

PROGRAM = """
import subprocess, sys, threading
from ggq import compile_workers, machine_code
from ggq.runtime.kernels.quantize import quantize
from ggq.runtime.kernels.walk import ENTRIES
from ggq.runtime.ops.columns.numba import _columns
from ggq.runtime.ops.gather.numba import _gather

compile_workers._processors = lambda: 2
take, compiled = machine_code._take, machine_code.Function.compiled
by_helper, helped = [], threading.Event()

def taken(function, code):
    take(function, code)
    if threading.current_thread() is not threading.main_thread():
        by_helper.append(function)
        helped.set()

def after_a_helper(function):
    assert helped.wait(100)
    return compiled(function)

machine_code._take = taken
if sys.argv[1] == "dies":
    nothing = [sys.executable, "-c", ""]
    pipe = subprocess.PIPE
    compile_workers._start = lambda: subprocess.Popen(nothing, stdin=pipe, stdout=pipe)
else:
    machine_code.Function.compiled = after_a_helper
kernels = [*ENTRIES, quantize, _columns, _gather]
told = []
machine_code.set_listener(lambda done, total: told.append((done, total)))
machine_code.make_ready(kernels)
assert all(k.is_ready() and k.path.exists() for k in kernels)
assert sorted(told) == [(i, 8) for i in range(9)], told
print(len(by_helper) > 0)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("helper", "helps"), [("works", "True"), ("dies", "False")])
def test_helpers_take_part_in_compiling(tmp_path, helper, helps):
    (tmp_path / "program.py").write_text(PROGRAM)
    folder = tmp_path / "a model's"
    folder.mkdir()
    (folder / "llvmlite.py").write_text("raise SystemExit('read from the working folder')")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), helper],
        cwd=folder,
        env={**os.environ, "GGQ_CACHE": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == helps, done.stderr
