"""A temporary copy of the package, for tests that add a file to it and see it work."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def copy_package(target: Path, files: dict[str, str]) -> Path:
    """Copy the four folders of the package and add ``files``: path from the root to text."""
    ignore = shutil.ignore_patterns("__pycache__")
    for folder in ("ggq", "converters", "runtime", "models"):
        shutil.copytree(ROOT / folder, target / folder, ignore=ignore, symlinks=True)
    for path, text in files.items():
        assert not (target / path).exists(), f"{path}: is there already"
        (target / path).write_text(text, encoding="utf-8")
    return target


def run_in(package: Path, script: str, *given: str):
    """Run ``script`` with the copied package; return what its last line of JSON says."""
    paths = os.pathsep.join([str(package), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", script, *given],
        cwd=package,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])
