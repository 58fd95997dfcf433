"""Writes data/projectors.json: what llama.cpp's converter makes of the tiny models with eyes.

    python tests/tools/make_projectors.py LLAMA_CPP     # a checkout; its gguf-py is used

It says, too, where a tensor's bytes differ from those of ggq's file.
"""

import json
import runpy
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from test_projector import described, projector  # noqa: E402
from tinyeyes import EYES, make_eyes  # noqa: E402

from ggq.gguf import open_gguf  # noqa: E402

KINDS = ("F16", "Q8_0", "BF16", "F32")
KEPT = ("F16", "Q8_0")


def made_by_llama_cpp(checkout, folder, kind, out):
    """Convert a folder's vision part as llama.cpp does."""
    options = ["--mmproj", str(folder), "--outtype", kind.lower(), "--outfile", str(out)]
    script = str(checkout / "convert_hf_to_gguf.py")
    given, sys.argv = sys.argv, [script, *options]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        assert not end.code, (folder, end)
    finally:
        sys.argv = given


def differing(path, other):
    """Return the names of the tensors whose bytes differ."""
    with open_gguf(path) as a, open_gguf(other) as b:
        return [n for n in a.tensors if a.data(n).tobytes() != b.data(n).tobytes()]


def main():
    checkout, found = Path(sys.argv[1]), {}
    sys.path[:0] = [str(checkout), str(checkout / "gguf-py")]
    for tiny in EYES:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / tiny.label
            folder.mkdir()
            make_eyes(tiny, folder)
            for kind in KINDS:
                theirs, ours = Path(place) / "theirs.gguf", projector(folder, Path(place), kind)
                made_by_llama_cpp(checkout, folder, kind, theirs)
                if kind in KEPT:
                    found.setdefault(tiny.label, {})[kind] = described(theirs)
                odd = differing(theirs, ours)
                same = described(theirs) == described(ours)
                told = "same keys" if same else "OTHER KEYS", odd or "same bytes"
                sys.stdout.write(f"{tiny.label} {kind}: {told}\n")
    text = json.dumps(found, indent=None, separators=(",", ":"), sort_keys=True)
    (TESTS / "data" / "projectors.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
