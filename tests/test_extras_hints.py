"""What to type for an extra is what works for the way ggq was installed."""

import importlib.metadata
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ggq import extras

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Have ggq lie in a site-packages, installed from what is told."""
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "site-packages/ggq/extras.py"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))

    def tell(direct_url):
        text = json.dumps(direct_url) if direct_url else None
        found = SimpleNamespace(read_text=lambda name: text)
        monkeypatch.setattr(importlib.metadata, "distribution", lambda name: found)
        return tmp_path

    return tell


def test_in_a_checkout_it_is_the_checkout():
    assert extras.how_to_install("serve") == f"pip install '{ROOT}[serve]'"


@pytest.mark.parametrize(
    ("direct_url", "what"),
    [
        (None, "ggq[torch]"),
        ({"url": "file:///a%20b/ggq.whl", "archive_info": {}}, "/a b/ggq.whl[torch]"),
        ({"url": "file:///src/ggq", "dir_info": {}}, "/src/ggq[torch]"),
        ({"url": "https://x/ggq.git", "vcs_info": {"vcs": "git"}},
         "ggq[torch] @ git+https://x/ggq.git"),
        ({"url": "https://x/ggq.whl", "archive_info": {}}, "ggq[torch] @ https://x/ggq.whl"),
    ],
)  # fmt: skip
def test_elsewhere_it_is_what_it_was_installed_from(installed, direct_url, what):
    prefix = installed(direct_url)
    assert extras.how_to_install("torch") == f"pip install '{what}'"
    (prefix / "pipx_metadata.json").touch()
    assert extras.how_to_install("torch") == f"pipx install --force '{what}'"
    (prefix / "uv-receipt.toml").touch()
    assert extras.how_to_install("torch") == f"uv tool install --force '{what}'"


def test_no_message_names_an_extra_by_hand():
    folders = [ROOT / name for name in ("ggq", "converters", "runtime", "models")]
    files = [p for folder in folders for p in folder.rglob("*.py") if not p.is_symlink()]
    assert [p for p in files if "install 'ggq[" in p.read_text(encoding="utf-8")] == []
