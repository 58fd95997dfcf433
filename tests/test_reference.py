"""The reference of the Python interface can be made and holds what users call."""

import subprocess
import sys
from pathlib import Path

import pytest

import ggq

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow


def test_pages_hold_the_public_names(tmp_path):
    pytest.importorskip("pdoc")
    command = [sys.executable, "tests/tools/reference.py", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    page = (tmp_path / "ggq.html").read_text(encoding="utf-8")
    assert [name for name in ggq.__all__ if f'id="{name}"' not in page] == []
    for room, shown in (("model", "Model.logits"), ("answers", "Answers.generate")):
        text = (tmp_path / f"ggq/runtime/{room}.html").read_text(encoding="utf-8")
        assert f'id="{shown}"' in text
    assert "float32" in (tmp_path / "ggq/runtime/texts.html").read_text(encoding="utf-8")
