"""Kernels that came with ggq: found without numba, refused where anything differs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ggq import build_kernels, quants, shipped
from ggq.machine_code import Function
from ggq.runtime.kernels.walk import ENTRIES
from ggq.simd.target import ISA, available, known

ROOT = Path(__file__).resolve().parents[1]
WORD = "ops.activate"

PROGRAM = """
import sys
import numpy as np
from ggq import shipped
from ggq.runtime.ops.activate.numba import _activate as kernel

block = np.zeros(kernel.arguments.nbytes // 8, np.int64)
kernel.ctypes(block.ctypes.data, 0, 0)
print(sorted({"numba", "llvmlite.binding"} & set(sys.modules)), "|", shipped.problem())
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return a folder with the library of one operation's kernels."""
    if not shutil.which("cc"):
        pytest.skip("no linker (cc)")
    folder = tmp_path_factory.mktemp("kernels")
    build_kernels.build([ISA], folder, 1, WORD)
    return folder


@pytest.fixture
def kernels(built, tmp_path):
    return shutil.copytree(built, tmp_path / "kernels")


def run(folder, tmp_path, code=PROGRAM, tree=ROOT):
    """Run a program whose kernels come from ``folder``; return its words and what it compiled."""
    cache = tmp_path / "cache"
    settings = {"GGQ_KERNELS": str(folder), "GGQ_CACHE": str(cache), "PYTHONPATH": str(tree)}
    settings |= {"GGQ_ISA": ISA, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    return done.stdout.strip(), len(list(cache.glob("jit/*/*.o")))


@pytest.mark.slow
def test_a_shipped_kernel_runs_without_numba(kernels, tmp_path):
    assert run(kernels, tmp_path) == ("[] |", 0)


@pytest.mark.slow
def test_without_libraries_it_is_compiled(tmp_path):
    said, compiled = run(tmp_path / "nothing", tmp_path)
    assert (said, compiled) == ("['llvmlite.binding', 'numba'] |", 1)


def flip_a_byte(folder):
    library = folder / f"{ISA}.so"
    code = bytearray(library.read_bytes())
    code[len(code) // 2] ^= 1
    library.write_bytes(code)


def name_another_platform(folder):
    description = folder / f"{ISA}.json"
    about = json.loads(description.read_text()) | {"platform": "beos ppc"}
    description.write_text(json.dumps(about))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (flip_a_byte, "does not match its checksum"),
        (name_another_platform, "is for beos ppc, this is"),
        (lambda folder: (folder / f"{ISA}.json").write_text("{"), "Expecting property name"),
        (lambda folder: (folder / f"{ISA}.json").write_text("[]"), "list indices must be"),
    ],
    ids=["a byte", "platform", "no JSON", "no object"],
)
def test_what_is_not_as_it_was_built_is_not_used(kernels, tmp_path, harm, said):
    harm(kernels)
    words, compiled = run(kernels, tmp_path)
    assert words.startswith("['llvmlite.binding', 'numba'] | ")
    assert said in words
    assert compiled == 1


@pytest.mark.slow
def test_an_edited_source_is_compiled_anew(kernels, tmp_path):
    tree = tmp_path / "tree"
    for folder in ("ggq", "runtime", "models", "converters"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tree / folder, symlinks=True, ignore=ignored)
    assert run(kernels, tmp_path, tree=tree) == ("[] |", 0)
    edited = tree / "runtime/ops/activate/numba.py"
    edited.write_text(
        edited.read_text().replace("_CUBIC, _DOUBLE = 0.04", "_CUBIC, _DOUBLE = 0.05")
    )
    assert run(kernels, tmp_path, tree=tree) == ("['llvmlite.binding', 'numba'] |", 1)


@pytest.mark.slow
def test_the_same_sources_give_the_same_bytes(built, capsys):
    options = ["--sets", ISA, "--only", WORD, "--jobs", "2", "--check", str(built)]
    assert build_kernels.main(options) == 0
    assert capsys.readouterr().out == "the same bytes\n"


@pytest.mark.slow
def test_sets_that_this_machine_lacks_are_built_for_their_baseline(tmp_path):
    if not shutil.which("cc"):
        pytest.skip("no linker (cc)")
    names = build_kernels.sets()
    assert set(available()) <= set(names) <= set(known())
    other = next((name for name in names if name not in available()), names[-1])
    build_kernels.build([other], tmp_path, 1, WORD)
    about = json.loads((tmp_path / f"{other}.json").read_text())
    assert len(about["functions"]) == len([f for f in build_kernels.functions() if WORD in f.name])


def test_all_that_models_may_ask_for_is_built():
    """tests/test_ops.py holds what operations record to functions made by an import, as these."""
    keys = {f.key for f in build_kernels.functions()}
    asked = list(ENTRIES)
    for kind in quants.all():
        found = kind.matmul()
        asked += [found.decode, found.prefill, found.dequantize]
    assert {f.key for f in asked} <= keys
    imported = [f for f in Function.made if f.home.startswith("ggq.runtime.")]
    assert {f.key for f in imported if not f.home.startswith("ggq.runtime.measure")} <= keys


def test_names_and_keys_tell_functions_apart():
    functions = build_kernels.functions()
    assert len({f.name for f in functions}) == len({f.key for f in functions}) == len(functions)
    assert all(str(ROOT) not in f.name and "0x" not in f.name for f in functions)


def test_another_family_is_refused(capsys):
    foreign = set(known()) - set(build_kernels.sets())
    with pytest.raises(SystemExit):
        build_kernels.main(["--sets", foreign.pop()])
    assert "not of this machine's family" in capsys.readouterr().err


def test_c_functions_have_addresses():
    assert all(shipped.c_address(name) for name in shipped.MATHS)
