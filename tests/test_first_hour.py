"""The steps of tests/tools/first_hour.py that need neither a network nor a model."""

import os

import pytest

pytest.importorskip("pty", reason="pseudo-terminals are POSIX")

from hour import shell
from hour.walk import Walk

pytestmark = pytest.mark.slow


def test_commands_and_hints(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    walk = Walk(tmp_path)
    shell.commands(walk)
    assert [point for point, _ in walk.seen] == ["5", "5"]
    assert "offline" in walk.refused("pull", "qwen3-4b", HF_HUB_OFFLINE="1")
