"""Instruction sets declare themselves: one new file is found, ranked, forced and compiled for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ggq.simd import target
from ggq.simd.multiply_add import terms

ROOT = Path(__file__).resolve().parents[1]

DUMMY = '''
"""A set like generic, better than all."""
from dataclasses import replace

from ggq.simd.declared import InstructionSet
from ggq.simd.sets import generic
from ggq.simd.sets.generic import lookup8, lookup16

SET = replace(generic.SET, rank=99, runs_on=lambda machine, features: True)


def dot4(builder, acc, unsigned, signed, wide):
    print("dummy's dot product")
    return generic.dot4(builder, acc, unsigned, signed, wide)
'''


def test_sets_are_ordered_and_the_last_runs_everywhere():
    ranks = [module.SET.rank for module in target.known().values()]
    assert ranks == sorted(ranks, reverse=True)
    assert list(target.known())[-1] == target.available()[-1] == "generic"
    assert target.ISA in target.available()
    for module in target.known().values():
        assert all(callable(getattr(module, name)) for name in ("dot4", "lookup8", "lookup16"))


def test_sets_without_a_dot_product_add_in_16_bits_what_fits():
    assert [terms(n) for n in (3, 15, 31, 63, 127, 255)] == [8, 8, 4, 2, 1, 1]
    for largest in range(1, 256):  # above 127 codes are signed bytes, activations -127 .. 127
        assert terms(largest) * 2 * min(largest, 128) * 127 <= 2**15 - 1


@pytest.mark.slow
@pytest.mark.parametrize("forced", ["dummy", ""])
def test_one_new_file_is_a_new_set(tmp_path, forced):
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("ggq", "runtime", "models", "converters", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=ignored)
    (tmp_path / "ggq/simd/sets/dummy.py").write_text(DUMMY)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "GGQ_CACHE": str(tmp_path / "cache")}
    environment |= {"GGQ_ISA": forced}
    command = [sys.executable, "-m", "tests.kernelcheck", "Q4_0"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    assert done.stdout.splitlines()[-1].startswith("dummy: ")
    assert "dummy's dot product" in done.stdout
