"""Types as a gate: these packages pass mypy --strict; add yours when it does."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STRICT = (
    "ggq.gguf",
    "ggq.models",
    "ggq.quants",
    "ggq.runtime.sampling",
    "ggq.runtime.server",
    "ggq.runtime.template",
    "ggq.runtime.tokenizers",
    "ggq.runtime.backends",
    "ggq.runtime.batching",
    "ggq.runtime.cache",
    "ggq.runtime.chat",
    "ggq.runtime.engine",
    "ggq.runtime.generation",
    "ggq.runtime.measure",
    "ggq.runtime.model",
)


def test_strict_packages_have_no_type_errors(tmp_path):
    pytest.importorskip("mypy")
    settings = tmp_path / "mypy.ini"
    settings.write_text(
        "[mypy]\nstrict = true\nignore_missing_imports = true\n"
        # What they import is read for its types; its own errors are its own business.
        "follow_imports = silent\n"
        # Compiled code: its vectors and intrinsics have no types that a checker knows.
        "[mypy-ggq.quants.kernels.*,ggq.quants.encoders.*,"
        "ggq.runtime.measure.roofline]\nignore_errors = true\n"
    )
    packages = [word for name in STRICT for word in ("-p", name)]
    _run("--config-file", str(settings), *packages)


def test_the_package_has_no_type_errors():
    """All of it, as strict as pyproject.toml says for each part."""
    pytest.importorskip("mypy")
    _run()


def _run(*arguments):
    command = [sys.executable, "-m", "mypy", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
