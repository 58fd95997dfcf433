"""What type checkers see of the public interface: real signatures, from the installed package."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SNIPPET = """
import ggq

ggq.load("x", n_ctx="a")
ggq.convert("x", type=5)
ggq.convert("x", target_size=1.5)
ggq.convert("x", misspelt=1)
ggq.prepass.GPTQ(damp="x")
ggq.load("x", n_ctx=5).tokenize(5)
(path,) = ggq.convert("x", quality="best", threads=4, progress=True)
path.name.lower()
"""


def test_checkers_see_signatures(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "snippet.py").write_text(SNIPPET)
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "--no-error-summary"]
    command += ["--cache-dir", str(tmp_path), str(tmp_path / "snippet.py")]
    here = os.environ | {"MYPYPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=here)
    assert [int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line] == [
        4, 5, 6, 7, 8, 9,
    ]  # fmt: skip
