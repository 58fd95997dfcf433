"""Matmul kernels of every block type against a float64 twin, for each instruction set here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ggq import jit, quants
from ggq.simd import target
from tests import kernelcheck

ROOT = Path(__file__).resolve().parent.parent


ONE = "Q4_K"  # compiled by --fast


def tiered(kind):
    return pytest.param(kind, id=kind.name, marks=() if kind.name == ONE else pytest.mark.slow)


@pytest.mark.parametrize("kind", [tiered(k) for k in kernelcheck.types_with_kernels()])
def test_kernels_equal_their_twin(kind):
    for shape in kernelcheck.shapes(kind):
        kernelcheck.check_matmul(kind, *shape)
    if hasattr(kind, "layout"):
        kernelcheck.check_extremes(kind)
    kernelcheck.check_rows(kind, 512)


def test_every_type_has_kernels():
    assert kernelcheck.types_with_kernels() == list(quants.all())
    assert len(kernelcheck.types_with_kernels()) >= 28


def _run(isa, *command):
    env = {**os.environ, "GGQ_ISA": isa, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *command], env=env, cwd=ROOT, capture_output=True, text=True, check=False
    )


# The kernels differ between sets in what ggq.simd puts in: lookups and shifts (all types decode),
# dot products and tiles (one type per form, all where they saturate). GGQ_WHOLE compiles all.
WHOLE = bool(os.environ.get("GGQ_WHOLE"))
OTHERS = [isa for isa in target.available() if WHOLE or isa != jit.ISA]
# Machine code is there to be read where it is compiled: always in CI, elsewhere of some types.
READS_ALL = WHOLE or bool(os.environ.get("CI"))
OPTIONS = [*([] if WHOLE else ["--sample"]), *(["--assembly"] if READS_ALL else [])]


@pytest.mark.slow
@pytest.mark.parametrize("names", kernelcheck.groups(), ids="-".join)
@pytest.mark.parametrize("isa", OTHERS)
def test_kernels_under_every_instruction_set(isa, names):
    done = _run(isa, "-m", "tests.kernelcheck", *OPTIONS, *names)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(f"{isa}: "), done.stdout


_ASSEMBLY = """
import sys
from ggq import quants
from tests.kernelcheck import check_assembly
check_assembly(quants.get(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Q4_K", "Q6_K", "F16"])
@pytest.mark.parametrize("isa", [jit.ISA] if READS_ALL else target.available())
def test_assembly_holds_the_sets_instructions_only(isa, name):
    done = _run(isa, "-c", _ASSEMBLY, name)
    assert done.returncode == 0, done.stderr[-2000:]


def test_unknown_instruction_set_is_refused():
    done = _run("sse9", "-c", "import ggq.jit")
    assert done.returncode != 0
    assert "GGQ_ISA=sse9" in done.stderr


def test_types_without_kernels_say_so():
    class Strange(type(quants.get("F32"))):
        name = "STRANGE"
        matmul = quants.QuantType.matmul

    with pytest.raises(quants.UsageError, match="STRANGE"):
        Strange().matmul()
