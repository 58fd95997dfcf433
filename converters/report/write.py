"""Writes a conversion's report as JSON or as one page, by the file's suffix."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ggq.converters.report.findings import Finding, worst
from ggq.converters.report.page import page
from ggq.converters.report.predictions import HeldBack
from ggq.errors import UsageError, printable
from ggq.outputs import output_file, write_text

__all__ = ["report_path", "write_report"]

SUFFIXES = (".html", ".json")


def report_path(path: str | os.PathLike[str]) -> Path:
    """Return where a report may be written, checked before it is made; UsageError."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"report {printable(path)}: a name in {' or '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise UsageError(f"report {printable(path)}: {printable(path.parent)} is no folder")
    target = output_file(path)
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise UsageError(f"report {printable(path)}: cannot be written")
    return path


def write_report(
    path: str | os.PathLike[str],
    found: list[Finding],
    facts: Mapping[str, Any],
    held: HeldBack | None = None,
) -> None:
    """Write ``found``, the conversion's ``facts`` and the predictions, as .json or one HTML page.

    UsageError where it cannot be written (see `report_path`).
    """
    path = report_path(path)
    if path.suffix.lower() == ".json":
        told: dict[str, Any] = {}
        if held is not None:
            told["held_back"] = {k: v for k, v in vars(held).items() if k != "power"}
        hints = [hint for _, hint, _ in worst(found)]
        tensors = [asdict(f) for f in found]
        text = json.dumps({**facts, **told, "suggested": hints, "tensors": tensors}, indent=1)
    else:
        text = page(found, facts, held)
    write_text(path, text + "\n", "report ")
