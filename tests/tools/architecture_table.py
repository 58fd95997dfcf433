"""Writes the table of architectures from the registry and the tests' tiny models.

``python tests/tools/architecture_table.py`` writes docs/architectures.md, the table and what is
refused, and the README's list of names between its two markers.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START, END = "<!-- architectures: make table -->", "<!-- end of architectures -->"


def table():
    """Return the table as Markdown: what converts and runs, and what it was tested against."""
    from tinyencoders import ENCODERS
    from tinymodels import TINY

    from ggq import models
    from ggq.models.wrappers import TEXT_CLASSES, WRAPPERS

    lines = ["| architecture | Hugging Face classes | tested against |", "|---|---|---|"]
    for arch in models.all_architectures():
        mine = [t for t in TINY if t.arch == arch.name]
        oracles = ["transformers"] * any(not t.twin for t in mine)
        oracles += ["a float64 twin"] * any(t.twin for t in mine)
        oracles += ["llama.cpp"] * any(t.peer for t in mine)
        if encoders := [e for e in ENCODERS.values() if e.arch == arch.name]:
            own = all(e.twin for e in encoders)
            oracles = ["a float64 twin" if own else "transformers"]
            oracles += ["llama.cpp"] * any(e.peer for e in encoders)
        classes = ", ".join(f"`{c}`" for c in arch.hf_classes)
        row = (f"`{arch.name}`", classes, ", ".join(oracles))
        lines.append("| " + " | ".join(row) + " |")
    inside = ", ".join(f"`{name}`" for name in WRAPPERS)
    kinds = ", ".join(f"`{kind}`" for kind in TEXT_CLASSES)
    told = f"Of these, the text model is converted where `text_config` says it is one of {kinds}"
    return "\n".join([*lines, "", f"{told}: {inside}."])


def names():
    """Return the README's lines: how many architectures and classes there are, and their names."""
    from ggq import models

    known = models.all_architectures()
    classes = sum(len(arch.hf_classes) for arch in known)
    listed = ", ".join(f"`{arch.name}`" for arch in known)
    return f"{len(known)} architectures, {classes} Hugging Face classes: {listed}."


def updated(text):
    """Return the README's text with the names between the markers."""
    before, rest = text.split(START)
    return f"{before}{START}\n{names()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    readme = ROOT / "README.md"
    readme.write_text(updated(readme.read_text(encoding="utf-8")), encoding="utf-8")
    sys.path.insert(0, str(ROOT / "tests" / "tools"))
    import refused_classes

    refused_classes.PAGE.write_text(refused_classes.page(table()), encoding="utf-8")
