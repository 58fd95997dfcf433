"""Keys of stored machine code: an edit of anything that it is made of recompiles it, no other."""

import ast
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import pytest

from ggq import jit, machine_code, quants, sources
from ggq.quants.encoders import block_32, block_256
from ggq.runtime.kernels.walk import ENTRIES
from ggq.runtime.ops.attention import numba as attention
from ggq.runtime.ops.conv import numba as conv
from ggq.runtime.ops.delta import numba as delta
from ggq.runtime.ops.gate import numba as gate
from ggq.runtime.ops.norm import numba as norm
from ggq.runtime.ops.route import numba as route

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


@cache
def kernels():
    """Return kernels by name: those of every type, of operations, and the executor's."""
    found = {
        "attend": attention.KERNELS["f16", "f16"].attend,
        "attend_new": attention.KERNELS["q8_0", "q8_0"].attend_new,
        "store": attention.KERNELS["f32", "f32"].store,
        "conv": conv._conv,
        "delta": delta._delta,
        "gate": gate._gate_quantized,
        "norm": norm._norm_quantized,
        "route": route._route,
        "walk": ENTRIES[0],
    }
    for kind in quants.all():
        for form in ("decode", "prefill", "dequantize"):
            found[f"{kind.name} {form}"] = getattr(kind.matmul(), form)
    return found


def functions_of(value, seen):
    """Yield every Python function that compiled code is made of, each once."""
    value = getattr(value, "py_func", getattr(value, "_defn", value))
    if isinstance(value, tuple | list):
        for item in value:
            yield from functions_of(item, seen)
    if not isinstance(value, FunctionType) or value in seen:
        return
    seen.add(value)
    yield value
    for cell in value.__closure__ or ():
        yield from functions_of(cell.cell_contents, seen)
    for name in names_in(value.__code__):
        yield from functions_of(value.__globals__.get(name), seen)


def names_in(code):
    """Yield the global names of a function and of those inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_in(constant)


@cache
def origins(module):
    """Return which module each imported global name of a module comes from."""
    tree = ast.parse(Path(sys.modules[module].__file__).read_text())
    return {
        alias.asname or alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ggq")
        for alias in node.names
    }


def test_all_that_a_kernel_uses_lies_inside_its_key():
    seen_constants = set()
    for name, kernel in kernels().items():
        inside = sources.closure(kernel.modules)
        for function in functions_of(kernel._function, set()):
            if not function.__module__.startswith("ggq"):
                continue
            assert function.__module__ in inside, (name, function)
            for used in names_in(function.__code__):
                value = function.__globals__.get(used)
                home = origins(function.__module__).get(used)
                if isinstance(value, ModuleType):
                    home = value.__name__
                if value is None or home is None or not home.startswith("ggq"):
                    continue
                assert home in inside, (name, function, used)
                seen_constants.add(used)
    assert {"PAGE", "TINY", "OAI_LIMIT", "LENGTH_EPS", "PART_BYTES", "abi"} <= seen_constants


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """Have keys made from a copy of the package; return a function that edits a file of it."""
    for folder in ("ggq", "runtime", "models", "converters"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=ignored)
    monkeypatch.setattr(sources, "_ROOT", tmp_path / "ggq")

    def edit(path, old, new):
        text = (tmp_path / path).read_text()
        assert old in text, path
        (tmp_path / path).write_text(text.replace(old, new, 1))
        forget()

    forget()
    yield edit
    forget()


def forget():
    for cached in (sources._file, sources._source, sources.closure, sources.digest):
        cached.cache_clear()


def changed_by(edit, *what):
    """Return the names of the kernels whose keys an edit changes."""
    before = {name: sources.digest(kernel.modules) for name, kernel in kernels().items()}
    edit(*what)
    after = {name: sources.digest(kernel.modules) for name, kernel in kernels().items()}
    return {name for name in before if before[name] != after[name]}


ATTENTION = {"attend", "attend_new", "store"}


@pytest.mark.parametrize(
    ("path", "old", "new", "recompiled"),
    [
        ("ggq/quants/mixtures.py", '"""', '"""A comment. ', set()),
        ("models/base.py", '"""', '"""A comment. ', set()),
        ("runtime/ops/route/__init__.py", "TINY = ", "TINY = 2 * ", {"route"}),
        ("runtime/ops/gate/__init__.py", "OAI_LIMIT = ", "OAI_LIMIT = 0, ", {"gate"}),
        ("runtime/ops/delta/__init__.py", "LENGTH_EPS = ", "LENGTH_EPS = 2 * ", {"delta"}),
        ("ggq/quants/kernels/q4_k.py", "STRIDE = 144", "STRIDE = 145", {"Q4_K"}),
    ],
)
def test_an_edit_recompiles_what_uses_it(copied, path, old, new, recompiled):
    changed = changed_by(copied, path, old, new)
    assert {name.split()[0] for name in changed} == recompiled


def test_an_edit_of_a_shared_constant_recompiles_all_that_use_it(copied):
    changed = changed_by(copied, "runtime/cache/layout.py", "PAGE = 64", "PAGE = 128")
    assert changed >= ATTENTION
    assert not {name for name in changed if " " in name}  # no type's
    changed = changed_by(copied, "runtime/cache/layout.py", "PART_BYTES = 24", "PART_BYTES = 32")
    assert changed == ATTENTION | {"conv", "delta"}
    assert changed_by(copied, "ggq/simd/lowering.py", "I32 = ", "I32 = I32 = ") == set(kernels())


def test_encoders_caches_hold_their_imports_too():
    for function in (block_32._symmetric, block_256._affine):
        kept = Path(function._cache.cache_path)
        modules = machine_code.modules_of(function) | jit.EMITTERS
        assert kept.is_relative_to(jit.cache_dir() / sources.digest(modules)[:24])
        assert {"ggq.quants.encoders.slabs", "ggq.simd.lanes"} <= sources.closure(modules)


PROGRAM = """
import numpy as np
from numba import float32
from ggq import jit, machine_code
from ggq.runtime.ops.route import TINY
from ggq.simd import store

told = []
machine_code.set_listener(lambda done, total: told.append(done))

@jit.kernel()
def constant(args, first, last):
    store(args.address, float32(TINY))

out = np.zeros(2, np.float32)
constant.ctypes(out.ctypes.data, 0, 1)
print(out[0] / np.float32(1e-20), len(told))
"""


def test_no_stale_code_runs_after_an_edit(copied, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "GGQ_CACHE": str(tmp_path / "cache")}
    # Python takes a .pyc for current where an edit within a second leaves the file's size alone.
    environment |= {"PYTHONDONTWRITEBYTECODE": "1"}

    def run():
        command = [sys.executable, str(program)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr
        assert not done.returncode, done.stderr
        return done.stdout.split()

    copied("runtime/ops/route/__init__.py", "TINY = ", "TINY = 1e-20  # ")
    assert run() == ["1.0", "2"]
    assert run() == ["1.0", "0"]
    copied("runtime/ops/route/__init__.py", "TINY = 1e-20", "TINY = 3e-20")
    assert run() == ["3.0", "2"]
