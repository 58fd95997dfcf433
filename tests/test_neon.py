"""NEON kernels of every block type, cross-compiled and run under an emulator of the processor."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import kernelcheck

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
TOOLS = {
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu and libc6-dev-arm64-cross",
    "qemu-aarch64": "qemu-user",
}


@pytest.mark.parametrize("names", kernelcheck.groups(), ids="-".join)
def test_kernels_equal_their_twin_under_emulation(names):
    for tool, package in TOOLS.items():
        if not shutil.which(tool):
            pytest.skip(f"{tool} is missing (Debian: {package})")
    env = {**os.environ, "GGQ_ISA": "neon", "GGQ_CROSS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.tools.neon_check", "--sample", *names]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.fullmatch(r"neon: \d\.\de[-+]\d\d\n", done.stdout), done.stdout
