"""Builds the kernels of a release wheel: a shared library for each instruction set (shipped.py).

    python -m ggq.build_kernels [--sets avx2,avx512] [--jobs 2] [--out DIR] [--only WORD]

Needs a linker (`cc`, or what CC names) and a machine of the sets' family, not the sets themselves.
The same sources and versions give the same bytes. `--check DIR` builds nothing that stays: it
compares checksums with those of the libraries in DIR and ends with 1 where they differ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pkgutil
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ggq import shipped

__all__ = ["build", "functions", "main", "sets"]

_ROOMS = ("ggq.quants.kernels", "ggq.runtime.kernels", "ggq.runtime.ops")


class _Everything(frozenset[str]):
    """The features of a processor that has all."""

    def __contains__(self, name: object) -> bool:
        return True

    def issuperset(self, other: Iterable[object]) -> bool:
        """Return True."""
        return True


def sets() -> list[str]:
    """Return the instruction sets of this machine's family, whether it has them or not."""
    from ggq.simd.declared import MACHINE
    from ggq.simd.target import known

    return [n for n, module in known().items() if module.SET.runs_on(MACHINE, _Everything())]


def functions() -> list[Any]:
    """Return all functions that running models may ask for, sorted by key."""
    from ggq.machine_code import Function

    for room in _ROOMS:
        for found in pkgutil.iter_modules(import_module(room).__path__):
            import_module(f"{room}.{found.name}" + (".numba" if found.ispkg else ""))
    made = {f.key: f for f in Function.made if f.home.startswith(_ROOMS)}
    return [made[key] for key in sorted(made)]


def build(names: list[str], out: Path, jobs: int, only: str = "") -> dict[str, str]:
    """Write a library and its description for each set; return the libraries' checksums."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        work = [
            (name, Path(folder) / name, part, jobs, only) for name in names for part in range(jobs)
        ]
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(lambda task: _start(*task), work))
        return {name: _library(name, Path(folder) / name, out) for name in names}


def _start(isa: str, folder: Path, part: int, parts: int, only: str) -> None:
    """Have a process of its own, which knows one set only, compile a part of the functions."""
    folder.mkdir(exist_ok=True)
    program = [sys.executable, "-m", __spec__.name if __spec__ else __name__, "--part"]
    environment = {**os.environ, "GGQ_ISA": isa, "GGQ_CROSS": "1", "GGQ_KERNELS": "none"}
    environment["PYTHONHASHSEED"] = "0"  # numba walks through sets: the order decides registers
    command = [*program, json.dumps([str(folder), part, parts, only])]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{isa}: {done.stderr.strip()}")


def _compile_part(folder: str, part: int, parts: int, only: str) -> None:
    """Write object files of every ``parts``-th function, and what they are called."""
    machine, names = _machine(), {}
    for function in [f for f in functions() if only in f.name][part::parts]:
        name = shipped.symbol(function.key)
        code = function.compiled(machine, name)
        if not code:
            sys.exit("this numba's internals differ from those that ggq/lean.py knows")
        del function.module
        Path(folder, f"{name}.o").write_bytes(code)
        names[function.name] = name
    if part == 0:
        Path(folder, "maths.o").write_bytes(_maths(machine))
    Path(folder, f"names{part}.json").write_text(json.dumps(names))


def _machine() -> Any:
    """Return LLVM's machine for the set's baseline, with code that may lie anywhere."""
    import llvmlite.binding as llvm

    from ggq.simd.target import CHOSEN

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    options = {"cpu": CHOSEN.SET.cpu, "features": CHOSEN.SET.features, "opt": 3}
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(**options, reloc="pic", codemodel="default")


def _maths(machine: Any) -> bytes:
    """Return an object file whose exp() and so on jump to where the loader found C's."""
    import llvmlite.binding as llvm

    kind = f"[{len(shipped.MATHS)} x ptr]"
    lines = [f"@ggq_maths = global {kind} zeroinitializer"]
    for i, (name, count) in enumerate(shipped.MATHS.items()):
        number = "float" if name.endswith("f") else "double"
        args = ", ".join(f"{number} %{chr(97 + n)}" for n in range(count))
        lines += [
            f"define hidden {number} @{name}({args}) {{",
            f"  %at = getelementptr {kind}, ptr @ggq_maths, i64 0, i64 {i}",
            "  %to = load ptr, ptr %at",
            f"  %result = tail call {number} %to({args})",
            f"  ret {number} %result",
            "}",
        ]
    module = llvm.parse_assembly("\n".join(lines))
    module.triple = llvm.get_process_triple()
    code: bytes = machine.emit_object(module)
    return code


def _library(isa: str, folder: Path, out: Path) -> str:
    """Link one set's objects; write the library and its description; return its checksum."""
    names: dict[str, str] = {}
    for file in folder.glob("names*.json"):
        names |= json.loads(file.read_text())
    objects = [f"{name}.o" for name in sorted(names.values())] + ["maths.o"]
    (folder / "objects").write_text("\n".join(objects))
    library = out / f"{isa}.so"
    if sys.platform == "darwin":
        flags = ["-dynamiclib", "-Wl,-no_uuid", f"-Wl,-install_name,{library.name}", "-Wl,-x"]
    else:
        flags = ["-shared", "-nostdlib", "-s", "-Wl,--build-id=none,-z,text,-z,defs,-z,noexecstack"]
    linker = shlex.split(os.environ.get("CC", "cc"))
    subprocess.run([*linker, *flags, "-o", library.resolve(), "@objects"], cwd=folder, check=True)
    digest = hashlib.sha256(library.read_bytes()).hexdigest()
    about = {
        "library": library.name,
        "platform": shipped.system(),
        "sha256": digest,
        "made by": {p: version(p) for p in ("numba", "llvmlite")}
        | {"python": sys.version.split()[0]},
        "functions": dict(sorted(names.items())),
    }
    (out / f"{isa}.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return digest


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m ggq.build_kernels", description=__doc__)
    parser.add_argument("--sets", type=lambda text: text.split(","), help="all of this family")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("kernels"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="functions with this word in their names")
    parser.add_argument("--check", type=Path, metavar="DIR")
    parser.add_argument("--part", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.part:
        _compile_part(*given.part)
        return 0
    names = given.sets or sets()
    if unknown := set(names) - set(sets()):
        parser.error(f"not of this machine's family: {', '.join(sorted(unknown))}")
    if not given.check:
        for name, digest in build(names, given.out, given.jobs, given.only).items():
            size = (given.out / f"{name}.so").stat().st_size
            sys.stdout.write(f"{digest}  {given.out / name}.so  {size / 1e6:.2f} MB\n")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        found = build(names, Path(folder), given.jobs, given.only)
    wanted = {n: json.loads((given.check / f"{n}.json").read_text())["sha256"] for n in names}
    differ = [name for name in names if found[name] != wanted[name]]
    sys.stdout.write(f"differ: {', '.join(differ)}\n" if differ else "the same bytes\n")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
