"""Matmul kernels of every block type against a float64 twin, for each instruction set here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ggq import jit, quants
from tests import kernelcheck

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("kind", kernelcheck.types_with_kernels(), ids=lambda k: k.name)
def test_kernels_equal_their_twin(kind):
    for shape in kernelcheck.shapes(kind):
        kernelcheck.check_matmul(kind, *shape)
    kernelcheck.check_rows(kind, 512)


def test_every_type_has_kernels():
    assert kernelcheck.types_with_kernels() == list(quants.all())
    assert len(kernelcheck.types_with_kernels()) >= 28


def _run(isa, *command, **extra):
    env = {**os.environ, "GGQ_ISA": isa, "PYTHONPATH": str(ROOT), **extra}
    return subprocess.run(
        [sys.executable, *command], env=env, cwd=ROOT, capture_output=True, text=True, check=False
    )


# CI runs every kernel of every type under each set; elsewhere a sample does: compiling takes long.
WHOLE = bool(os.environ.get("CI") or os.environ.get("GGQ_WHOLE"))


@pytest.mark.parametrize("isa", [i for i in jit.host_isas() if WHOLE or i != jit.ISA])
def test_kernels_under_every_instruction_set(isa, tmp_path):
    if WHOLE:
        done = _run(isa, "-m", "tests.kernelcheck", "--assembly", GGQ_CACHE=str(tmp_path))
    else:
        # AVX2's dot product alone saturates, so that it depends on a type's codes.
        done = _run(isa, "-m", "tests.kernelcheck", "--dots" if isa == "avx2" else "--unpack")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(f"{isa}: "), done.stdout


_ASSEMBLY = """
from ggq import quants
from tests.kernelcheck import check_assembly
for name in ("Q4_K", "Q6_K", "F16"):
    check_assembly(quants.get(name))
"""


@pytest.mark.parametrize("isa", jit.host_isas())
def test_assembly_holds_the_sets_instructions_only(isa, tmp_path):
    done = _run(isa, "-c", _ASSEMBLY, GGQ_CACHE=str(tmp_path))
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
