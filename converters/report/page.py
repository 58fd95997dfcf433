"""The report as one HTML page: tiles, bars and a heat map in SVG, no script and nothing loaded."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ggq.converters.report.findings import OUTLIER, Finding, worst
from ggq.converters.report.predictions import HeldBack

__all__ = ["page"]

STYLE = """
:root{--ink:#1d2430;--soft:#5b6675;--line:#dfe4ea;--card:#f6f8fa;--page:#fff;--bad:#b3261e;
--hue:#2a6f97;--a:#2a6f97;--b:#e09f3e;--c:#7a9e58;--d:#9e5a87;--e:#8d99ae;--f:#5f6f52}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#9aa5b4;--line:#333b47;--card:#1c222b;
--page:#12161c;--bad:#ff8a80;--hue:#6fb1d8;--a:#5aa0cb}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);margin:2.5em auto;
max-width:64em;padding:0 1.2em}
h1{font-size:1.6em;margin:0}h2{font-size:1.15em;margin:2.2em 0 .6em}
p.note,.sub{color:var(--soft)}.sub{margin:.2em 0 1.6em}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.4em,1fr));gap:.7em}
.tile{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.7em .9em}
.tile b{display:block;font-size:1.35em;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:.88em}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:.92em}
th,td{padding:.25em .6em;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--soft);font-weight:600}
th:first-child,td:first-child,.left{text-align:left}
code{font:13px ui-monospace,monospace;background:var(--card);padding:.1em .35em;border-radius:4px;
white-space:normal;overflow-wrap:anywhere}
.bad{color:var(--bad);font-weight:600}
.bar{background:var(--hue);height:8px;border-radius:2px;min-width:1px}
.stack{display:flex;height:22px;border-radius:5px;overflow:hidden}
.key{display:flex;flex-wrap:wrap;gap:.3em 1.2em;margin:.5em 0;color:var(--soft);font-size:.92em}
.key i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.3em 1.2em;margin:0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.scroll{overflow-x:auto}
svg text{font:11px system-ui,sans-serif;fill:var(--soft)}
"""
COLOURS = ("var(--a)", "var(--b)", "var(--c)", "var(--d)", "var(--e)", "var(--f)")
LAYER = re.compile(r"blk\.(\d+)\.(.+?)(\.weight)?$")
CELL_W, CELL_H, LABEL = 26, 20, 130


def page(found: list[Finding], facts: Mapping[str, Any], held: HeldBack | None) -> str:
    """Return the page."""
    title = _text(facts.get("file", "report"))
    parts = [
        f"<h1>{title}</h1>",
        f'<p class="sub">Conversion report &middot; type {_text(facts.get("type", ""))}</p>',
        _tiles(found, held),
        _types(found),
        _predictions(held),
        _map(found),
        _hints(found),
        _warnings(found),
        _table(found),
        _provenance(facts),
    ]
    head = '<!doctype html><html lang="en"><meta charset="utf-8">'
    head += '<meta name="viewport" content="width=device-width"><meta name="color-scheme" '
    head += f'content="light dark"><title>{title}</title><style>{STYLE}</style>'
    return "\n".join([head, *filter(None, parts), "</html>"])


def _tiles(found: list[Finding], held: HeldBack | None) -> str:
    tiles = [(_size(sum(f.nbytes for f in found)), "in tensors"), (str(len(found)), "tensors")]
    quantized = [f for f in found if f.error]
    if quantized:
        mean = sum(f.error * f.nbytes for f in quantized) / sum(f.nbytes for f in quantized)
        tiles.append((f"{100 * mean:.2f} %", "mean error of rounded weights"))
    if held is not None:
        kld, error = held.figures["kld"], held.figures["kld_error"]
        tiles.append((f"{kld:.4f}", f"KL divergence, nats &plusmn; {error:.4f}"))
        tiles.append((f"{100 * held.figures['same_top']:.1f} %", "same most likely token"))
        tiles.append((f"{held.figures['ppl_ratio']:.4f}", "perplexity over the original's"))
    cells = (
        f'<div class="tile"><b>{value}</b><span>{label}</span></div>' for value, label in tiles
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


def _types(found: list[Finding]) -> str:
    """Return a bar of the bytes by type."""
    sizes: Counter[str] = Counter()
    for f in found:
        sizes[f.type_name] += f.nbytes
    total = sum(sizes.values()) or 1
    bars, keys = [], []
    for i, (name, size) in enumerate(sizes.most_common()):
        colour = COLOURS[i % len(COLOURS)]
        share = 100 * size / total
        bars.append(f'<div style="width:{share:.3f}%;background:{colour}"></div>')
        text = f"{_text(name)} {_size(size)}, {share:.1f} %"
        keys.append(f'<span><i style="background:{colour}"></i>{text}</span>')
    stack, key = "".join(bars), "".join(keys)
    return f'<h2>Bytes by type</h2><div class="stack">{stack}</div><div class="key">{key}</div>'


def _predictions(held: HeldBack | None) -> str:
    if held is None:
        note = "Not measured: torch is needed to run the original (ggq's extra torch)."
        return f'<h2>Predictions</h2><p class="note">{note}</p>'
    f = held.figures
    kind = "windows that were calibrated on" if held.calibrated else "held back"
    note = f"{held.positions} positions of {_text(Path(held.dataset).name)}, {kind}"
    rows = [("KL divergence", f["kld_percentiles"], 1, f["kld"], f["kld_median"], 5)]
    rows.append(("change of p, %", f["delta_p_percentiles"], 100, f["delta_p"], None, 3))
    names = list(f["kld_percentiles"])
    head = "".join(f"<th>{_text(n)} %</th>" for n in names)
    body = ""
    for name, values, factor, mean, median, digits in rows:
        middle = "" if median is None else f"{median:.{digits}f}"
        cells = "".join(f"<td>{factor * values[n]:.{digits}f}</td>" for n in names)
        body += (
            f"<tr><td>{name}</td><td>{factor * mean:.{digits}f}</td><td>{middle}</td>{cells}</tr>"
        )
    return (
        f'<h2>Predictions beside the original</h2><p class="note">{note}</p><div class="scroll">'
        f"<table><tr><th></th><th>mean</th><th>median</th>{head}</tr>{body}</table></div>"
    )


def _map(found: list[Finding]) -> str:
    """Return the errors as a grid: roles down, layers across, darker for more."""
    cells: dict[tuple[str, int], Finding] = {}
    for f in found:
        match = LAYER.match(f.name)
        if match and f.error:
            cells[match[2], int(match[1])] = f
    if not cells:
        return ""
    roles = list(dict.fromkeys(role for role, _ in cells))
    layers = sorted({layer for _, layer in cells})
    most = max(_measure(f) for f in cells.values())
    shapes = []
    for y, role in enumerate(roles):
        top = y * CELL_H
        label = f'<text x="{LABEL - 8}" y="{top + 14}" text-anchor="end">{_text(role)}</text>'
        shapes.append(label)
        for x, layer in enumerate(layers):
            here = cells.get((role, layer))
            if here is not None:
                shapes.append(_cell(here, LABEL + x * CELL_W, top, _measure(here) / most))
    bottom = len(roles) * CELL_H
    for x, layer in enumerate(layers):
        if len(layers) <= 12 or x % 5 == 0:
            middle = LABEL + x * CELL_W + CELL_W // 2
            text = f'<text x="{middle}" y="{bottom + 14}" text-anchor="middle">{layer}</text>'
            shapes.append(text)
    width, height = LABEL + len(layers) * CELL_W, bottom + 20
    what = "weighted by the inputs' power" if any(f.weighted for f in found) else "unweighted"
    note = f"Root mean square error over that of the weights, {what}; full colour is "
    svg = f'<svg width="{width}" height="{height}" role="img">{"".join(shapes)}</svg>'
    return (
        f'<h2>Error by layer</h2><p class="note">{note}{100 * most:.2f} %. Passes that aim at the '
        "outputs move weights away from the source on purpose.</p>"
        f'<div class="scroll">{svg}</div>'
    )


def _cell(f: Finding, x: int, y: int, share: float) -> str:
    tip = f"{f.name}: {f.type_name}, {100 * _measure(f):.3f} %"
    return (
        f'<rect x="{x}" y="{y}" width="{CELL_W - 2}" height="{CELL_H - 2}" rx="3" '
        f'fill="var(--hue)" fill-opacity="{0.08 + 0.92 * share:.3f}">'
        f"<title>{_text(tip)}</title></rect>"
    )


def _measure(f: Finding) -> float:
    return f.error if f.weighted is None else f.weighted


def _hints(found: list[Finding]) -> str:
    rows = [
        f"<tr><td>{_text(f.name)}</td><td>{f.type_name}</td><td>{100 * _measure(f):.2f}</td>"
        f'<td>+{_size(more)}</td><td class="left"><code>{_text(hint)}</code></td></tr>'
        for f, hint, more in worst(found)
    ]
    if not rows:
        return ""
    head = "<tr><th>tensor</th><th>type</th><th>error %</th><th>costs</th><th></th></tr>"
    body = "".join(rows)
    return f'<h2>What hurts most</h2><div class="scroll"><table>{head}{body}</table></div>'


def _warnings(found: list[Finding]) -> str:
    """Return channels far above the rest and values that half precision cannot hold."""
    told = []
    for f in sorted(found, key=lambda f: -f.outlier):
        if f.beyond_f16:
            what = f"<span class=bad>{f.peak:.4g}</span> is beyond what F16 holds"
            told.append(f"<li>{_text(f.name)}: {what}</li>")
        elif f.outlier > OUTLIER:
            what = f"one column peaks at {f.peak:.4g}, {f.outlier:.0f} times the median column"
            told.append(f"<li>{_text(f.name)}: {what}</li>")
    more = f"<li>and {len(told) - 20} more</li>" if len(told) > 20 else ""
    listed = f"<ul>{''.join(told[:20])}{more}</ul>"
    none = '<p class="note">No column far above the rest, no value beyond F16.</p>'
    return f"<h2>Outliers and overflow</h2>{listed if told else none}"


def _table(found: list[Finding]) -> str:
    most = max((f.error for f in found), default=0.0)
    heads = ("tensor", "type", "bytes", "error %", "weighted %", "peak", "outlier", "")
    head = "".join(f"<th>{name}</th>" for name in heads)
    rows = "".join(_row(f, most) for f in found)
    return (
        f"<h2>Tensors</h2><details><summary>{len(found)} tensors</summary>"
        f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div></details>'
    )


def _row(f: Finding, most: float) -> str:
    weighted = "" if f.weighted is None else f"{100 * f.weighted:.3f}"
    width = round(120 * f.error / most) if most else 0
    marks = ["bad" if f.beyond_f16 else "", "bad" if f.outlier > OUTLIER else ""]
    cells: Sequence[tuple[str, str]] = (
        ("", _text(f.name)),
        ("", f.type_name),
        ("", f"{f.nbytes:,}"),
        ("", f"{100 * f.error:.3f}"),
        ("", weighted),
        (marks[0], f"{f.peak:.4g}"),
        (marks[1], f"{f.outlier:.1f}"),
        ("", f'<div class="bar" style="width:{width}px"></div>' if width else ""),
    )
    return f"<tr>{''.join(_cells(cells))}</tr>"


def _cells(cells: Iterable[tuple[str, str]]) -> Iterable[str]:
    return (
        f'<td class="{mark}">{text}</td>' if mark else f"<td>{text}</td>" for mark, text in cells
    )


def _provenance(facts: Mapping[str, Any]) -> str:
    told = "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in facts.items())
    return f"<h2>Provenance</h2><dl>{told}</dl>"


def _size(nbytes: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= size:
            return f"{nbytes / size:.3g} {unit}"
    return f"{nbytes:.0f} B"


def _text(value: Any) -> str:
    return html.escape(str(value))
