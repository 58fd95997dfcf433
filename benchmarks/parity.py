"""Every tensor of ggq's files against llama-quantize's, byte by byte, for all file types.

    python benchmarks/parity.py HF_FOLDER [HF_FOLDER ...] --llama-bin DIR --work DIR

llama-quantize reads the F32 file that ggq makes of the folder (tests compare that one with
convert_hf_to_gguf.py's); ggq converts the folder itself. Each type is made twice: plain and with
importance (--imatrix, else seeded heavy-tailed numbers for every matrix but the embedding).
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np

from ggq.converters.convert import convert
from ggq.converters.imatrix import write_imatrix
from ggq.errors import UsageError
from ggq.gguf import GGUFFile, open_gguf, spec
from ggq.quants.mixtures import FILE_TYPES


def importance(base: Path, path: Path) -> Path:
    """Write an importance matrix for every matrix but the embedding."""
    rng, sums, counts = np.random.default_rng(7), {}, {}
    with open_gguf(base) as file:
        for name, tensor in file.tensors.items():
            if len(tensor.shape) > 1 and name != "token_embd.weight":
                sums[name] = np.exp(2 * rng.standard_normal((1, tensor.shape[-1]))).astype("f4")
                counts[name] = np.ones(1, np.float32)
    write_imatrix(path, sums, counts, "log-normal numbers", (1, 512))
    return path


def quantized(binary: Path, base: Path, out: Path, kind: str, matrix: Path | None) -> Path | None:
    """Run llama-quantize; None where it wants importance for this type."""
    given = ["--imatrix", matrix] if matrix else []
    command = [str(x) for x in (binary / "llama-quantize", *given, base, out, kind, 1)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "importance matrix" in done.stdout + done.stderr:
        return None
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {(done.stdout + done.stderr)[-300:]}")
    return out


def other_tensors(ours: GGUFFile, theirs: GGUFFile) -> list[str]:
    """Return the tensors whose type, shape or bytes are not the same."""
    found = sorted({*ours.tensors} ^ {*theirs.tensors})
    for name in sorted({*ours.tensors} & {*theirs.tensors}):
        a, b = ours.tensors[name], theirs.tensors[name]
        alike = a.type_id == b.type_id and tuple(a.shape) == tuple(b.shape)
        if not alike or not np.array_equal(ours.data(name), theirs.data(name)):
            found.append(name)
    return found


def shares(file: GGUFFile) -> str:
    """Return the share of weights per block type in words."""
    counts = Counter()
    for tensor in file.tensors.values():
        counts[spec.type_name(tensor.type_id)] += int(np.prod(tensor.shape))
    return " ".join(f"{k} {100 * n / counts.total():.1f} %" for k, n in counts.most_common())


def row(given: argparse.Namespace, source: Path, base: Path, kind: str, matrix) -> dict:
    """Make one type with both, compare, print and return what was found."""
    work: Path = given.work
    theirs = quantized(given.llama_bin, base, work / "theirs.gguf", kind, matrix)
    found = {"model": source.name, "type": kind, "importance": matrix is not None}
    try:
        (ours,) = convert(source, work / f"ours-{kind}.gguf", kind, imatrix=matrix)
    except UsageError as error:
        ours = None
        if "importance matrix" not in str(error):
            raise
    if ours is None or theirs is None:
        same = ours is theirs
        found |= {"same": same, "note": "refused by both" if same else "refused by one"}
    else:
        with open_gguf(ours) as a, open_gguf(theirs) as b:
            other = other_tensors(a, b)
            found |= {"same": not other, "tensors": len(b.tensors), "other": other}
            found["note"] = f"{len(b.tensors) - len(other)} of {len(b.tensors)}  {shares(b)}"
        ours.unlink()
    label = f"{kind}{' + importance' if matrix else ''}"
    verdict = "same " if found["same"] else "OTHER"
    print(f"{source.name:<12} {label:<24} {verdict} {found['note']}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="+", type=Path, help="HF folder")
    parser.add_argument("--types", default=",".join(FILE_TYPES))
    parser.add_argument("--imatrix", type=Path, help="llama.cpp's, for the one folder given")
    parser.add_argument("--llama-bin", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    found = []
    for source in given.source:
        (base,) = convert(source, given.work / f"{source.name}-f32.gguf", "F32")
        matrix = given.imatrix or importance(base, given.work / f"{source.name}-imatrix.gguf")
        for kind in given.types.split(","):
            found += [row(given, source, base, kind, m) for m in (None, matrix)]
        base.unlink()
    same = sum(f["same"] for f in found)
    print(f"{same} of {len(found)} files have llama-quantize's tensors, byte for byte")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    raise SystemExit(same < len(found))


if __name__ == "__main__":
    main()
