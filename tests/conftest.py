"""What every test may use: the shared data of the project and a seeded source of random numbers."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]

# A shell starts background jobs with Ctrl-C ignored, and a process hands that on to its children:
# tests of interruption, here and in child processes, need it back.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Return the folder of shared models, texts and golden data; skip where there is none."""
    path = Path(os.environ.get("GGQ_SHARED", ROOT.parent / "shared"))
    if not (path / "golden").is_dir():
        pytest.skip(f"no shared test data at {path} (set GGQ_SHARED to its folder)")
    return path


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a generator with the same seed for every test."""
    return np.random.default_rng(20260101)
