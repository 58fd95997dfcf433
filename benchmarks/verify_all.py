"""`ggq verify --source` over every file type of real models, and one flipped bit in each file.

    python benchmarks/verify_all.py [HF_FOLDER ...] [--types Q4_K_M,...] [--best] [--json FILE]

Each folder (default: stories15M and minimind2 beside the project) is converted to every type, plain
and with importance; the file must be verified, and with one bit flipped anywhere in it must not
be. ``--best``: once more with --quality best, which runs the passes again. Exits 1 on any failure.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from parity import importance

from ggq.converters.convert import convert
from ggq.converters.verify import Settings, Verdict, verify
from ggq.errors import GGQError, UsageError
from ggq.gguf import open_gguf
from ggq.quants.mixtures import FILE_TYPES

SHARED = Path(os.environ.get("GGQ_SHARED", Path(__file__).resolve().parents[2] / "shared"))
MODELS = ("stories15M", "minimind2")


def flip(path: Path, rng: np.random.Generator) -> tuple[int, int]:
    """Flip one random bit of the file; return the byte and the bit."""
    at, bit = int(rng.integers(path.stat().st_size)), int(rng.integers(8))
    with path.open("r+b") as file:
        file.seek(at)
        (value,) = file.read(1)
        file.seek(at)
        file.write(bytes([value ^ 1 << bit]))
    return at, bit


def where(path: Path, at: int) -> str:
    """Return what a byte of a file belongs to: a tensor's name, a key's, or neither."""
    with open_gguf(path) as file:
        for tensor in file.tensors.values():
            if tensor.offset <= at < tensor.offset + tensor.nbytes:
                return tensor.name
        for key in file.metadata:
            entry = file.metadata.entry(key)
            if entry.start <= at < entry.end:
                return key
    return ""


def judged(path: Path, source: Path, settings: Settings) -> tuple[bool, str]:
    """Return whether the file is verified, and everything that was said."""
    try:
        found: Verdict = verify(path, source, settings)
    except GGQError as error:  # a header that no longer parses is found, too
        return False, str(error)
    return found.is_verified, "; ".join([*found.differs, *found.unknown, *found.notes])


def row(source: Path, path: Path, settings: Settings, rng: np.random.Generator) -> dict:
    """Verify a file, flip a bit, verify again; return what was found."""
    start = time.perf_counter()
    verified, said = judged(path, source, settings)
    found = {"verified": verified, "seconds": round(time.perf_counter() - start, 1)}
    if verified:
        copy = path.with_suffix(".flipped")
        copy.write_bytes(path.read_bytes())
        at, bit = flip(copy, rng)
        place = where(path, at)
        still, said = judged(copy, source, settings)
        copy.unlink()
        found |= {"byte": at, "bit": bit, "place": place, "found": not still}
        found["named"] = place in said
    return found | {"said": said[:300], "good": verified and found.get("found", False)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="*", type=Path, help="HF folder")
    parser.add_argument("--types", default=",".join(FILE_TYPES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--best", action="store_true", help="also with --quality best, once each")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rng, rows = np.random.default_rng(given.seed), []
    for source in given.source or [SHARED / "models" / name for name in MODELS]:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            (base,) = convert(source, work / "base.gguf", "F32")
            matrix = importance(base, work / "imatrix.gguf")
            cases = [(kind, m, None) for kind in given.types.split(",") for m in (None, matrix)]
            cases += [("Q4_K_M", None, "best")] if given.best else []
            for kind, used, quality in cases:
                label = f"{source.name} {kind}" + " + importance" * bool(used)
                label += f" + {quality}" if quality else ""
                try:
                    (path,) = convert(
                        source, work / "m.gguf", kind, imatrix=used, quality=quality, force=True
                    )
                except UsageError as error:  # wants importance
                    print(f"{label:<40} refused: {str(error)[:80]}", flush=True)
                    continue
                found = {"label": label, **row(source, path, Settings(imatrix=used), rng)}
                rows.append(found)
                verdict = "good" if found["good"] else "WRONG"
                print(f"{label:<40} {verdict} {found['seconds']} s  {found['said']}", flush=True)
    good = sum(r["good"] for r in rows)
    named = sum(r.get("named", False) for r in rows)
    print(f"{good} of {len(rows)} files verified and their flipped bits found, {named} named")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")
    raise SystemExit(good < len(rows))


if __name__ == "__main__":
    main()
