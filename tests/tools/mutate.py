"""Puts one fault at a time into a copy of the tree and tells which the tests catch.

    python tests/tools/mutate.py [--tree DIR] [WORD ...]     (only mutants whose name holds a WORD)

A mutant is a text that occurs once in the package, what it becomes, and the tests that should see
it. They run on the unchanged copy first: what fails there proves nothing. `--tree` is another
checkout, for one suite beside another. Kernels are compiled into a cache folder of the copy.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("ggq", "runtime", "models", "converters")
SECONDS = 900
NO_TESTS = (2, 3, 4, 5)  # pytest: interrupted by a broken collection, its own errors, none found


class Mutant(NamedTuple):
    """A fault: ``old`` becomes ``new``; ``tests`` are pytest's arguments."""

    name: str
    old: str
    new: str
    tests: str


MUTANTS = (
    # kernels
    Mutant(
        "Q3_K: third bits of the wrong plane",
        "c3 = c3 | masked(planes >> _right_4_5(), 4)",
        "c3 = c3 | masked(planes >> _right_2_3(), 4)",
        "tests/test_kernels.py -k twin[Q3_K]",
    ),
    Mutant(
        "AVX2: top bit of a u8 lost in wide dots",
        "high = builder.and_(builder.lshr(unsigned, splat(kind, 1)), splat(kind, 64))",
        "high = builder.and_(builder.lshr(unsigned, splat(kind, 1)), splat(kind, 32))",
        "tests/test_kernels.py -k every_instruction_set[avx2",
    ),
    Mutant(
        "generic: odd sums twice",
        "list(range(0, count // 2, 2))",
        "list(range(1, count // 2, 2))",
        "tests/test_kernels.py -k every_instruction_set[generic",
    ),
    Mutant(
        "tiles: the last valid row is not repeated",
        "at = row + min(r, n_valid - 1) * row_bytes",
        "at = row + r * row_bytes",
        "tests/test_kernels.py -k twin[Q8_0]",
    ),
    Mutant(
        "attention: one position too many is seen",
        "(position >= splat(start, i32x16)) & (position < splat(end, i32x16))",
        "(position >= splat(start, i32x16)) & (position <= splat(end, i32x16))",
        "tests/test_ops.py tests/test_engine.py -k attention or engine",
    ),
    Mutant(
        "norm: padding counts in a layer norm's variance",
        "(reduce_add(squares) - surplus)",
        "(reduce_add(squares))",
        "tests/test_ops.py -k norm",
    ),
    # block types and mixtures
    Mutant(
        "Q6_K: high bits packed one bit off",
        "qh = join_planes(codes >> np.uint8(4), 32, 2)",
        "qh = join_planes((codes >> np.uint8(4)) & np.uint8(1), 32, 2)",
        "tests/test_quants.py -k Q6_K",
    ),
    Mutant(
        "mixtures: the last eighth of the layers begins late",
        "i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2",
        "i < n // 8 or i > 7 * n // 8 or (i - n // 8) % 3 == 2",
        "tests/test_mixtures.py",
    ),
    # files
    Mutant(
        "GGUF: blocks need not fill a row",
        "if dims[0] % info.block_size:",
        "if dims[0] % info.block_size and n_dims == 1:",
        "tests/test_gguf_hostile.py",
    ),
    Mutant(
        "GGUF: tensors may overlap",
        "if offset != expected:",
        "if offset > expected:",
        "tests/test_gguf_hostile.py",
    ),
    Mutant(
        "GGUF: a written tensor is padded one byte short",
        "shard.file.write(bytes(padded - tensor.nbytes))",
        "shard.file.write(bytes(max(padded - tensor.nbytes - 1, 0)))",
        "tests/test_gguf_writer.py",
    ),
    Mutant(
        "GPTQ: zeros are less one in v2, too",
        'less_one=stored == "gptq"',
        "less_one=True",
        "tests/test_formats.py -k gptq or GPTQ",
    ),
    # sampling and answers
    Mutant(
        "top-p: the token that reaches p is dropped",
        "keep = min(int(np.searchsorted(cumulative, p)) + 1, len(head))",
        "keep = min(max(int(np.searchsorted(cumulative, p)), 1), len(head))",
        "tests/test_sampling.py",
    ),
    Mutant(
        "penalties: negative logits are raised",
        "old / np.float32(repeat), old * np.float32(repeat)",
        "old / np.float32(repeat), old / np.float32(repeat)",
        "tests/test_sampling.py",
    ),
    Mutant(
        "stop strings: half of one at the end is let out",
        "longest = min(len(stop) - 1, len(self._held))",
        "longest = min(len(stop) - 2, len(self._held))",
        "tests/test_generation.py tests/test_scheduler_text.py",
    ),
    # cache and scheduler
    Mutant(
        "cache: a shared page has one user",
        "self.users[page] += 1",
        "self.users[page] += 0",
        "tests/test_kvcache.py",
    ),
    Mutant(
        "scheduler: a client's next request goes before others' first",
        "self._queues.move_to_end(client)",
        "self._queues.move_to_end(client, last=False)",
        "tests/test_scheduler.py",
    ),
    Mutant(
        "scheduler: the last token of a prompt is taken from a prefix",
        "ids = task.prompt[:-1]",
        "ids = task.prompt",
        "tests/test_scheduler.py",
    ),
    # text
    Mutant(
        "template: indent fills blank lines",
        "prefix + line if line or blank else line",
        "prefix + line",
        "tests/test_template.py tests/test_template_text.py",
    ),
    Mutant(
        "tokenizer: one byte of byte-level BPE is another's",
        "*range(0xA1, 0xAD), *range(0xAE, 0x100)",
        "*range(0xA1, 0xAE), *range(0xAE, 0x100)",
        "tests/test_tokenizers.py",
    ),
)


def find(tree: Path, mutant: Mutant) -> Path:
    """Return the one file of the package that holds the mutant's text, once."""
    paths = {p.resolve() for folder in FOLDERS for p in (tree / folder).rglob("*.py")}
    found = [p for p in sorted(paths) if mutant.old in p.read_text(encoding="utf-8")]
    times = sum(p.read_text(encoding="utf-8").count(mutant.old) for p in found)
    if times != 1:
        raise SystemExit(f"{mutant.name}: its text occurs {times} times: {mutant.old}")
    return found[0]


def run(tree: Path, tests: str) -> int:
    """Run tests in a tree until the first failure; return pytest's code, negative if it died."""
    files, _, word = tests.partition(" -k ")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    command += [*files.split(), *(["-k", word] if word else [])]
    environment = {**os.environ, "PYTHONPATH": str(tree), "GGQ_CACHE": str(tree / "cache")}
    environment.setdefault("GGQ_SHARED", str(ROOT.parent / "shared"))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        return subprocess.run(
            command, cwd=tree, env=environment, timeout=SECONDS, check=False, **quiet
        ).returncode
    except subprocess.TimeoutExpired:
        return -1


def main() -> None:
    """Run the mutants; exit with 1 where one lived or proved nothing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", type=Path, default=ROOT)
    parser.add_argument("words", nargs="*")
    given = parser.parse_args()
    chosen = [m for m in MUTANTS if not given.words or any(w in m.name for w in given.words)]
    healthy: dict[str, int] = {}
    caught = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        ignore = shutil.ignore_patterns(".git", ".venv", "__pycache__", "*.egg-info", "demo")
        shutil.copytree(given.tree, tree, ignore=ignore, symlinks=True)
        for mutant in chosen:
            if mutant.tests not in healthy:
                healthy[mutant.tests] = run(tree, mutant.tests)
            path = find(tree, mutant)
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
            code = run(tree, mutant.tests)
            path.write_text(text, encoding="utf-8")
            if healthy[mutant.tests] or code in NO_TESTS:
                told = f"UNKNOWN: pytest ended with {healthy[mutant.tests]}, then {code}"
            else:
                told, caught = ("caught", caught + 1) if code else ("LIVES", caught)
            sys.stdout.write(f"{told:8}{mutant.name}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{caught} of {len(chosen)} caught\n")
    sys.exit(caught < len(chosen))


if __name__ == "__main__":
    main()
