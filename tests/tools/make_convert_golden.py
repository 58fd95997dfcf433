"""Writes tests/data/convert.json: what llama.cpp makes of the tiny models of tests/hfmaker.py.

Run on a machine with llama.cpp (see oracle.py): python tests/tools/make_convert_golden.py
Per model: the type of every tensor in every file type, the first 16 hex digits of the SHA-256 of
its bytes in each type, with and without importance, and the keys that the converter writes.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import oracle  # noqa: E402
from golden_models import (  # noqa: E402
    FILE_TYPES,
    MODELS,
    NEED_IMATRIX,
    build,
    make_imatrix,
)

from ggq.gguf import open_gguf, spec  # noqa: E402


def digest(data):
    return hashlib.sha256(data.tobytes()).hexdigest()[:16]


def keys_of(file):
    """Return the keys outside the tokenizer, lists shortened to their digest."""
    found = {}
    for key in file.metadata:
        if not key.startswith("tokenizer."):
            found[key] = [file.value_type(key), file.metadata[key]]
    return found


def golden_of(name, work):
    folder = build(name, work)
    base = oracle.convert_hf(folder, work / "f32.gguf", "f32", "gpt-2")
    imatrix = make_imatrix(base, work / "imatrix.gguf")
    found = {"keys": keys_of(open_gguf(base)), "types": {}, "sha256": {}}
    for importance in (None, imatrix):
        for file_type in FILE_TYPES:
            if file_type in NEED_IMATRIX and importance is None:
                continue
            label = file_type + ("+imatrix" if importance else "")
            file = open_gguf(oracle.quantize(base, work / "q.gguf", file_type, importance))
            types = found["types"][label] = {}
            for tensor in file.tensors.values():
                kind = spec.type_name(tensor.type_id)
                types[tensor.name] = kind
                entry = found["sha256"].setdefault(tensor.name, {})
                key = kind + ("+imatrix" if importance else "")
                assert entry.setdefault(key, digest(file.data(tensor.name)))
                assert entry[key] == digest(file.data(tensor.name))
    return found


def main():
    golden = {}
    for name in MODELS:
        with tempfile.TemporaryDirectory() as work:
            golden[name] = golden_of(name, Path(work))
    out = ROOT / "tests/data/convert.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(compact(golden))


def compact(golden):
    """Return JSON with the types of a tensor in one line, in the order of the labels."""
    for model in golden.values():
        labels = model["labels"] = list(model["types"])
        names = model["order"] = list(model["types"][labels[0]])
        assert all(list(t) == names for t in model["types"].values())
        model["types"] = {n: " ".join(model["types"][x][n] for x in labels) for n in names}
    return json.dumps(golden, indent=0, sort_keys=True) + "\n"


if __name__ == "__main__":
    main()
