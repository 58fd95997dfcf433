"""Runs ggq as an arm64 Linux sees it: Debian's Python and arm64 wheels under qemu's emulator.

    python -m tests.tools.arm64 root DIR                     # Debian 12, ggq and its wheels in DIR
    python -m tests.tools.arm64 kernels DIR MODEL.gguf ...   # NEON kernels that these models need
    python -m tests.tools.arm64 run DIR python3 -m ggq chat m.gguf -p Hi    # in DIR/work

Needs root, and Debian's debootstrap, qemu-user-static and gcc-aarch64-linux-gnu. Compiling under
the emulator takes many minutes, so kernels are compiled here, for the other processor: what a wheel
made on arm64 holds of them. Encoders that `convert` needs are compiled there (F16 needs
none). How fast a machine with the processor is, an emulator does not say.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TRIPLE = "aarch64-unknown-linux-gnu"
SITE = "opt/site"  # of the other system: where the wheels are
# What qemu's processor has, as Linux says it: version 7's emulator shows the host's file.
CPU = "Features\t: fp asimd atomics fphp asimdhp asimdrdm asimddp i8mm bf16\n"
_INSIDE = """
mount --bind /proc "$0/proc" && mount --bind /dev "$0/dev"
mount --bind "$0/tmp/cpuinfo" "$0/proc/cpuinfo"
cd "$0" && exec chroot . /usr/bin/env -i PATH=/usr/bin:/bin LANG=C.UTF-8 HOME=/root \\
  PYTHONPATH=/opt/site GGQ_CACHE=/work/cache sh -c 'cd /work && exec "$@"' sh "$@"
"""
# Linux gives the other processor's programs to the emulator of this system.
_HEADER = r":ggq-aarch64:M::\x7fELF\x02\x01\x01" + r"\x00" * 9 + r"\x02\x00\xb7\x00:"
_HEADER += r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff:"
_BINFMT = Path("/proc/sys/fs/binfmt_misc")


def told(*command: str | Path) -> None:
    """Run a command; end where it fails."""
    subprocess.run([str(word) for word in command], check=True)


def root(folder: Path) -> None:
    """Make the other system: Debian's packages unpacked, wheels beside them."""
    mirror = "http://deb.debian.org/debian"
    options = ["--foreign", "--arch=arm64", "--variant=minbase", "--include=python3"]
    told("debootstrap", *options, "bookworm", folder, mirror)
    for package in (folder / "var/cache/apt/archives").glob("*.deb"):
        told("dpkg", "-x", package, folder)
    pip = [sys.executable, "-m", "pip"]
    told(*pip, "wheel", "-q", "--no-deps", "-w", folder / "tmp", ROOT)
    (wheel,) = (folder / "tmp").glob("ggq-*.whl")
    platforms = [f"--platform=manylinux_2_{n}_aarch64" for n in (17, 27, 28)]
    only = ["--only-binary=:all:", "--python-version=3.11", "-c", ROOT / ".ci/constraints.txt"]
    told(*pip, "install", "-q", "--target", folder / SITE, *platforms, *only, wheel)
    (folder / "work").mkdir(exist_ok=True)


def kernels(folder: Path, models: list[str]) -> None:
    """Compile the NEON kernels that models need into the other system's package."""
    os.environ |= {"GGQ_ISA": "neon", "GGQ_CROSS": "1", "GGQ_KERNELS": "none"}
    os.environ |= {"PYTHONHASHSEED": "0", "CC": "aarch64-linux-gnu-gcc"}
    import llvmlite.binding as llvm

    platform.machine = lambda: "aarch64"
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.get_process_triple = lambda: TRIPLE
    import ggq
    from ggq import build_kernels
    from ggq.runtime.backends.numba import backend

    class RecordedError(Exception):
        """The plans are recorded: nothing is to be run."""

    found: dict[str, Any] = {}

    def recorded(functions: list[Any]) -> None:
        found.update((f.key, f) for f in functions)
        raise RecordedError

    backend.make_ready = recorded
    for path in models:
        with ggq.load(path, n_ctx=512, threads=1) as model:
            try:
                model.engine.warm_up()
            except RecordedError:
                continue
    build_kernels.functions = lambda: [found[key] for key in sorted(found)]
    out, objects = folder / SITE / "ggq/kernels", folder / "tmp/objects"
    for made in (out, objects):
        made.mkdir(parents=True, exist_ok=True)
    build_kernels._compile_part(str(objects), 0, 1, "")
    build_kernels._library("neon", objects, out)


def run(folder: Path, command: list[str]) -> int:
    """Run a command of the other system in a mount namespace of its own; return its exit code."""
    if not (_BINFMT / "register").exists():
        told("mount", "-t", "binfmt_misc", "binfmt_misc", _BINFMT)
    if not (_BINFMT / "ggq-aarch64").exists():
        (_BINFMT / "register").write_text(_HEADER + "/usr/bin/qemu-aarch64-static:F")
    (folder / "tmp/cpuinfo").write_text(CPU)
    inside = ["unshare", "-m", "--propagation", "private", "bash", "-c", _INSIDE, str(folder)]
    return subprocess.run([*inside, *command], check=False).returncode


def main() -> int:
    """Do what the command line says."""
    if len(sys.argv) < 3 or sys.argv[1] not in ("root", "kernels", "run"):
        sys.exit(__doc__)
    action, folder, *rest = sys.argv[1:]
    where = Path(folder).resolve()
    if action == "root":
        root(where)
    elif action == "kernels":
        kernels(where, rest)
    else:
        return run(where, rest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
