"""What every test may use: shared data, random numbers, and the tier `--fast` (tests/README.md)."""

import os
import signal
import sys
from pathlib import Path

# Tests run in a process per core. Threads of torch and BLAS that spin until the others get a core
# took three times the time of one; child processes inherit this. Read once, when they are imported.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]

# A shell starts background jobs with Ctrl-C ignored, and a process hands that on to its children:
# tests of interruption, here and in child processes, need it back.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fast", action="store_true", help="without torch, peers and tests marked slow"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--fast"):
        for name in ("torch", "transformers", "llama_cpp"):
            sys.modules[name] = None  # importing it fails as where it is not installed


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--fast"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        left_out = set(slow)
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=slow)


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


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model that can be talked to; a test file that needs another one has its own."""
    from ggufmaker import make_tiny_llama

    import ggq

    path = make_tiny_llama(tmp_path_factory.mktemp("tiny") / "t.gguf", n_ctx=1024, vocab="bpe")
    with ggq.load(path, n_ctx=4096, threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def client(model):
    """A client of a server of ``model``."""
    from servers import serving

    with serving(model) as client:
        yield client
