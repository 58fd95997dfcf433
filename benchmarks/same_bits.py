"""Files and logits of this tree against those of another commit, bit for bit.

    python benchmarks/same_bits.py --base 9d1c290 [--only TEXT] [--quick] [--keep FILE]

Every tiny architecture of the tests, converted to two types, and the real models beside the
project in every file type, plain and with importance: SHA-256 of the file, of the logits of a
prompt (prefill kernels) and of single steps after it (decode kernels). Sources are made once; each
tree converts and evaluates them in a process of its own. Prints what differs; exits 1 if any does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("GGQ_SHARED", ROOT.parent / "shared"))
TINY_TYPES = ("F16", "Q4_K_M")
REAL_MODELS = ("stories15M", "minimind2")
QUICK_TYPES = ("Q8_0", "Q4_K_M", "Q2_K", "IQ2_XS")
N_PROMPT, N_STEPS = 40, 4


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


# --- in a process of either tree -----------------------------------------------------------------


def digests(sources: list[Path], work: Path, quick: bool) -> dict[str, str]:
    """Return what this process' ggq makes of ``sources``: a digest per file and per evaluation."""
    import ggq
    from ggq.quants.mixtures import FILE_TYPES

    found: dict[str, str] = {}
    os.chdir(work)
    for source in sources:
        real = source.name in REAL_MODELS
        types = (QUICK_TYPES if quick else tuple(FILE_TYPES)) if real else TINY_TYPES
        matrices = (None, f"{source.name}-imatrix.gguf") if real else (None,)  # its name is a key
        for kind in types:
            for matrix in matrices:
                label = f"{source.name} {kind}{' + importance' if matrix else ''}"
                out = work / "made.gguf"
                out.unlink(missing_ok=True)
                try:
                    ggq.convert(source, out, type=kind, imatrix=matrix)
                except ggq.GGQError:
                    found[label] = "refused"
                    continue
                found[f"{label} file"] = sha(out.read_bytes())
                found |= {f"{label} {k}": v for k, v in evaluated(out, source).items()}
                print(label, file=sys.stderr, flush=True)
    return found


def evaluated(path: Path, source: Path) -> dict[str, str]:
    """Return digests of a prompt's logits, of single steps behind it, or of embeddings."""
    import numpy as np

    import ggq

    with ggq.load(path, n_ctx=128, threads=1) as model:
        if (source / "1_Pooling").is_dir():
            return {"embedding": sha(model.embed(["The quick brown fox", "a lazy dog"]).tobytes())}
        n_vocab = len(model.logits([3])[0])
        ids = np.random.default_rng(5).integers(3, n_vocab - 1, N_PROMPT + N_STEPS).tolist()
        prompt = sha(model.logits(ids[:N_PROMPT]).tobytes())
        session = model.session()
        session.evaluate(ids[:N_PROMPT])
        steps = [session.evaluate([i]).tobytes() for i in ids[N_PROMPT:]]
        return {"prompt": prompt, "steps": sha(b"".join(steps))}


# --- here ----------------------------------------------------------------------------------------


def make_sources(work: Path, only: str) -> list[Path]:
    """Write the tiny models and find the real ones; return their folders."""
    sys.path.insert(0, str(ROOT / "tests"))
    from tinyencoders import ENCODERS, make_encoder
    from tinymodels import TINY, make_tiny

    made = []
    for tiny in TINY:
        if only in tiny.label:
            made.append(work / tiny.label.replace(" ", "-"))
            made[-1].mkdir(parents=True, exist_ok=True)
            make_tiny(tiny, made[-1])
    for arch in ENCODERS:
        if only in arch:
            made.append(work / arch)
            made[-1].mkdir(parents=True, exist_ok=True)
            make_encoder(arch, made[-1], "mean_tokens")
    real = [SHARED / "models" / name for name in REAL_MODELS]
    return made + [folder for folder in real if folder.is_dir() and only in folder.name]


def make_importance(source: Path, work: Path) -> None:
    """Write an importance matrix of seeded heavy-tailed numbers for ``source``'s matrices."""
    from parity import importance

    import ggq

    (work / "base.gguf").unlink(missing_ok=True)
    base, *_ = ggq.convert(source, work / "base.gguf", type="F32")
    importance(base, work / f"{source.name}-imatrix.gguf")


def run(tree: Path, sources: list[Path], work: Path, quick: bool) -> dict[str, str]:
    """Return the digests of ``tree``'s ggq, from a process of its own."""
    out = work / f"digests-{sha(str(tree).encode())}.json"
    code = [sys.executable, __file__, "--digests", str(out), "--work", str(work)]
    code += ["--quick"] * quick + [str(s) for s in sources]
    subprocess.run(code, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, check=True)
    return json.loads(out.read_text())


def at_commit(base: str, sources: list[Path], work: Path, quick: bool) -> dict[str, str]:
    """Return the digests of a commit, checked out for the time of it, or of another checkout."""
    if Path(base).is_dir():
        return run(Path(base), sources, work, quick)
    git = ["git", "-C", str(ROOT), "worktree"]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "base"
        subprocess.run([*git, "add", "-q", "--detach", str(tree), base], check=True)
        try:
            return run(tree, sources, work, quick)
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="9d1c290", help="commit, or the folder of a checkout")
    parser.add_argument("--against", type=Path, help="digests from --keep, not --base")
    parser.add_argument("--keep", type=Path, help="also write this tree's digests to this file")
    parser.add_argument("--work", type=Path, help="where files are made; default: a temporary one")
    parser.add_argument("--only", default="", help="only models whose name contains this")
    parser.add_argument("--quick", action="store_true", help="four file types of the real models")
    parser.add_argument("--digests", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("sources", nargs="*", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.digests:
        found = digests(given.sources, given.work, given.quick)
        given.digests.write_text(json.dumps(found, indent=1))
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        work = work.resolve()
        sources = make_sources(work, given.only)
        for source in sources:
            if source.name in REAL_MODELS:
                make_importance(source, work)
        ours = run(ROOT, sources, work, given.quick)
        if given.keep:
            given.keep.write_text(json.dumps(ours, indent=1))
        if given.against:
            theirs = {k: v for k, v in json.loads(given.against.read_text()).items() if k in ours}
        else:
            theirs = at_commit(given.base, sources, work, given.quick)
    other = [k for k in {**theirs, **ours} if ours.get(k) != theirs.get(k)]
    for name in other:
        print(f"OTHER {name}: {theirs.get(name)} -> {ours.get(name)}")
    print(f"{len(ours) - len(other)} of {len(ours)} files and evaluations are the same bit for bit")
    raise SystemExit(bool(other) or not ours)


if __name__ == "__main__":
    main()
