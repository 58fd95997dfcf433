"""What a conversion did to each tensor: errors against the source, outliers, values beyond F16.

One self-contained HTML page or JSON, by the file's suffix. It knows no pass and no architecture.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ggq.converters.encode import F16_MAX
from ggq.gguf import open_gguf, spec

__all__ = ["Finding", "findings", "write_report"]

SAMPLE_ROWS = 512
OUTLIER = 20.0  # a column this many times the median column's peak stands out
BETTER = {"Q2_K": "Q3_K", "Q3_K": "Q4_K", "Q4_K": "Q5_K", "Q5_K": "Q6_K", "Q6_K": "Q8_0",
          "Q4_0": "Q5_0", "Q4_1": "Q5_1", "Q5_0": "Q8_0", "Q5_1": "Q8_0"}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One tensor. ``error``: root mean square error over the root mean square of the source;
    ``weighted``: the same with each column's importance, None where it was not measured."""

    name: str
    type_name: str
    nbytes: int
    error: float
    weighted: float | None
    peak: float
    outlier: float  # the largest column peak over the median one
    beyond_f16: bool


def findings(
    path: str | Path, source: Mapping[str, Any], importance: Mapping[str, np.ndarray] | None = None
) -> list[Finding]:
    """Compare a written file with the tensors it was made from, on a sample of their rows."""
    with open_gguf(path) as file:
        return [
            _finding(source[name], info, file.data(name), (importance or {}).get(name))
            for name, info in file.tensors.items()
            if name in source
        ]


def _finding(tensor: Any, info: Any, data: np.ndarray, power: np.ndarray | None) -> Finding:
    from ggq import quants

    n_rows = prod(tensor.shape[:-1])
    picked = np.unique(np.linspace(0, n_rows - 1, min(SAMPLE_ROWS, n_rows)).astype(int))
    x = np.concatenate([tensor.read(int(r), int(r) + 1) for r in picked]).astype(np.float64)
    made = quants.by_id(info.type_id).dequantize(np.ascontiguousarray(data[picked]))
    error = (made - x) ** 2
    columns = np.abs(x).max(0)
    peak = float(columns.max())
    weights = None if power is None or power.size != x.shape[1] else power
    return Finding(
        name=tensor.name,
        type_name=spec.type_name(info.type_id),
        nbytes=int(info.nbytes),
        error=_relative(error, x**2),
        weighted=None if weights is None else _relative(error * weights, x**2 * weights),
        peak=peak,
        outlier=peak / max(float(np.median(columns)), 1e-30) if len(x) > 1 else 1.0,
        beyond_f16=peak > F16_MAX,
    )


def _relative(error: np.ndarray, square: np.ndarray) -> float:
    return float(np.sqrt(error.sum() / max(float(square.sum()), 1e-300)))


def worst(found: list[Finding], n: int = 10) -> list[tuple[Finding, str]]:
    """Return the tensors that hurt most and the override that would help each."""
    ranked = sorted(found, key=lambda f: -(f.weighted or f.error))
    with_help = [(f, BETTER.get(f.type_name)) for f in ranked]
    return [(f, f"--tensor-type '^{f.name}$={kind}'") for f, kind in with_help if kind][:n]


def write_report(path: str | Path, found: list[Finding], facts: Mapping[str, Any]) -> None:
    """Write ``found`` and the conversion's ``facts`` as .json or as one HTML page."""
    path = Path(path)
    if path.suffix == ".json":
        tensors = [asdict(f) for f in found]
        hints = [hint for _, hint in worst(found)]
        text = json.dumps({**facts, "suggested": hints, "tensors": tensors}, indent=1)
    else:
        text = _page(found, facts)
    path.write_text(text + "\n", encoding="utf-8")


def _page(found: list[Finding], facts: Mapping[str, Any]) -> str:
    rows = "\n".join(_row(f, max(g.error for g in found)) for f in found)
    told = "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in facts.items())
    hints = "".join(f"<li><code>{_text(hint)}</code></li>" for _, hint in worst(found))
    title = _text(facts.get("file", "report"))
    return f"""<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px sans-serif;margin:2em auto;max-width:70em}}td,th{{padding:2px 8px;
text-align:right}}td:first-child{{text-align:left}}.bar{{background:#48a;height:9px}}
.bad{{color:#b00}}dt{{font-weight:bold}}</style>
<h1>Conversion report</h1><dl>{told}</dl>
<h2>What would help most</h2><ol>{hints}</ol>
<h2>Tensors</h2><table><tr><th>tensor<th>type<th>bytes<th>error %<th>weighted %<th>peak<th>outlier
<th>error</tr>
{rows}</table>"""


def _row(f: Finding, most: float) -> str:
    weighted = "" if f.weighted is None else f"{100 * f.weighted:.3f}"
    width = round(160 * f.error / most) if most else 0
    outlier = f'<td class="{"bad" if f.outlier > OUTLIER else ""}">{f.outlier:.1f}'
    peak = f'<td class="{"bad" if f.beyond_f16 else ""}">{f.peak:.4g}'
    return (
        f"<tr><td>{_text(f.name)}<td>{f.type_name}<td>{f.nbytes}<td>{100 * f.error:.3f}"
        f'<td>{weighted}{peak}{outlier}<td><div class="bar" style="width:{width}px"></div></tr>'
    )


def _text(value: Any) -> str:
    return html.escape(str(value))
