"""The page docs/architectures.md: what converts, and what llama.cpp's converter takes alone.

``python tests/tools/architecture_table.py`` writes it. The list of classes is
``tests/data/llama_cpp_classes.json``; which are refused, and why, is asked of ggq.
"""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data" / "llama_cpp_classes.json"
PAGE = ROOT / "docs" / "architectures.md"


def refused():
    """Return (known classes, reason -> refused ones)."""
    from ggq import models
    from ggq.errors import ModelError
    from ggq.models.refused import REASONS

    data = json.loads(DATA.read_text(encoding="utf-8"))

    def takes(name):
        try:
            models.for_hf({"architectures": [name], "text_config": {"model_type": "llama"}})
        except ModelError:
            return False
        return True

    lacking = {name for name in data["classes"] if not takes(name)}
    by_reason = {
        reason: [name for name in names if name in lacking] for reason, names in REASONS.items()
    }
    told = {name for names in by_reason.values() for name in names}
    assert lacking <= told, f"no reason in models/refused.py: {sorted(lacking - told)}"
    return data["classes"], by_reason


def page(table):
    """Return the page as Markdown; ``table``: what converts and runs."""
    classes, by_reason = refused()
    revision = json.loads(DATA.read_text(encoding="utf-8"))["commit"][:8]
    count = sum(map(len, by_reason.values()))
    lines = [
        "# Architectures",
        "",
        "`ggq check SOURCE` says of any folder, file or config.json whether it converts, and what",
        "is missing if not, before anything is downloaded or written. Each of these was made tiny",
        "and random by transformers (where that lacks the class, by hand from one that has the",
        "same graph), converted, and its logits or vectors held against those of the programs",
        "named.",
        "",
        table,
        "",
        "## What is refused",
        "",
        f"llama.cpp's converter took {len(classes)} classes of text models at revision {revision}",
        f"(its `TEXT_MODEL_MAP`). ggq takes {len(classes) - count} of them and refuses these",
        f"{count}, by what they need:",
    ]
    for reason, names in by_reason.items():
        if names:
            lines += ["", f"### {reason[0].upper()}{reason[1:]}", ""]
            lines += [", ".join(f"`{name}`" for name in names) + "."]
    return "\n".join(lines) + "\n"
