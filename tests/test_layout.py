"""The project's own rules: what is packaged, who imports whom, how large things may grow."""

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "ggq": "ggq",
    "converters": "ggq/converters",
    "runtime": "ggq/runtime",
    "models": "ggq/models",
}
LINKED = ("converters", "runtime", "models")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 80
MAX_PARAMETERS = 7
# Kernels take arrays one by one, because numba compiles no dataclasses: these files hold kernels.
KERNEL_FILES = (
    "ggq/quants/kernels/*.py",
    "ggq/simd/*.py",
    "ggq/quants/*.py",
    "ggq/quants/types/*.py",
    "ggq/quants/encoders/*.py",
    "runtime/ops/*/numba.py",
    "runtime/kernels/*.py",
)
TORCH_FILES = (
    "converters/checkpoint/pickled.py",
    *("runtime/backends/torch/*.py", "runtime/engine/torch/*.py", "runtime/ops/*/torch.py"),
    *("converters/prepasses/*.py", "converters/prepasses/*/*.py"),
)


def files(*folders: str) -> list[str]:
    """Return the files of ``folders``, relative to the root; links are not followed."""
    found = []
    for folder in folders:
        for path, names, here in os.walk(ROOT / folder):
            names[:] = [n for n in names if n != "__pycache__" and not Path(path, n).is_symlink()]
            found += [Path(path, f).relative_to(ROOT).as_posix() for f in here]
    return sorted(found)


PACKAGED = [p for p in files(*FOLDERS) if p not in FOLDERS.values()]
PACKAGE = [p for p in PACKAGED if p.endswith(".py")]
FRONT = [p for p in PACKAGED if p.endswith((".html", ".css", ".js"))]
EVERYTHING = PACKAGE + [p for p in files("tests", "benchmarks") if p.endswith(".py")]


@cache
def tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=path)


def functions(path: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(Path(path).match(pattern) for pattern in patterns)


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)} if cwd == ROOT else os.environ
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )


# --- packaging ---


def test_wheel_holds_every_file_and_only_ggq(tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    for folder in FOLDERS:
        ignore = shutil.ignore_patterns("__pycache__", *(LINKED if folder == "ggq" else ()))
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    build = "import setuptools.build_meta as b; b.build_wheel('.')"
    done = run("-c", build, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    expected = set()
    for path in PACKAGED:
        folder, _, rest = path.partition("/")
        expected.add(f"{FOLDERS[folder]}/{rest}")
    assert expected - packed == set(), (
        "a folder without __init__.py, or data that pyproject.toml does not name"
    )
    assert {name.split("/")[0].split("-")[0] for name in packed} == {"ggq"}


@pytest.mark.parametrize("name", LINKED)
def test_checkout_link_points_to_the_real_folder(name):
    link = ROOT / "ggq" / name
    if link.is_file():  # git for Windows without symbolic links writes the target as text
        assert link.read_text() == f"../{name}"
    else:
        assert link.resolve() == ROOT / name


@pytest.mark.parametrize("name", LINKED)
def test_folder_refuses_a_second_name(name):
    done = run("-c", f"import {name}")
    assert done.returncode != 0
    assert f"import this package as ggq.{name}" in done.stderr


# --- imports ---


def test_import_order():
    pytest.importorskip("importlinter")
    done = run("-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr


def imported(path: str) -> set[str]:
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_ray_is_imported_only_by_the_cluster():
    offenders = [p for p in PACKAGE if "ray" in imported(p) and not p.startswith("ggq/cluster/")]
    assert offenders == []


def test_torch_is_imported_only_where_it_may_be():
    offenders = [p for p in PACKAGE if "torch" in imported(p) and not matches(p, TORCH_FILES)]
    assert offenders == []


def test_imports_are_absolute_and_by_the_one_name():
    wrong = []
    for path in PACKAGE:
        relative = [n for n in ast.walk(tree(path)) if isinstance(n, ast.ImportFrom) and n.level]
        if relative or imported(path) & set(LINKED):
            wrong.append(path)
    assert wrong == []


@pytest.mark.parametrize(
    "module",
    ["ggq", "ggq.cli", "ggq.commands.chat", "ggq.runtime.engine.cpu.backend", "ggq.build_kernels"],
)
def test_import_is_light(module):
    loaded = "sorted({'torch', 'numba', 'transformers', 'llvmlite.binding'} & set(sys.modules))"
    done = run("-c", f"import sys, {module}; print({loaded})")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_kernels_are_imported_without_a_compiler():
    code = "import sys; from ggq.build_kernels import functions; assert len(functions()) > 100; "
    done = run("-c", code + "print(sorted({'numba', 'llvmlite.binding'} & set(sys.modules)))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


# --- size and style ---


def test_files_stay_small():
    every = EVERYTHING + FRONT
    lines = {p: len((ROOT / p).read_text(encoding="utf-8").splitlines()) for p in every}
    assert {p: n for p, n in lines.items() if n > MAX_FILE_LINES} == {}


def test_functions_stay_small():
    long = {
        f"{path}:{f.name}": f.end_lineno - f.lineno + 1
        for path in EVERYTHING
        for f in functions(path)
        if f.end_lineno - f.lineno >= MAX_FUNCTION_LINES
    }
    assert long == {}


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    a = function.args
    names = [arg.arg for arg in [*a.posonlyargs, *a.args, *a.kwonlyargs]]
    return len([name for name in names if name not in ("self", "cls")])


def test_functions_take_few_parameters():
    many = {
        f"{path}:{f.name}": parameters(f)
        for path in PACKAGE
        if not matches(path, KERNEL_FILES)
        for f in functions(path)
        if parameters(f) > MAX_PARAMETERS
    }
    assert many == {}


def test_every_module_says_what_it_does():
    silent = [p for p in EVERYTHING if tree(p).body and not ast.get_docstring(tree(p))]
    assert silent == []


@pytest.mark.parametrize("command", [("check",), ("format", "--check")], ids=["lint", "format"])
def test_ruff(command):
    pytest.importorskip("ruff")
    done = run("-m", "ruff", *command, ".")
    assert done.returncode == 0, done.stdout + done.stderr
