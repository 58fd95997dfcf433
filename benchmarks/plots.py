"""Draws the README's two plots from the tables in docs/speed.md and docs/quality.md.

``python benchmarks/plots.py`` writes docs/pictures/speed.svg and quality.svg. Plain SVG, so that
a test can compare them with the tables on any machine.
"""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
OURS, THEIRS, INK, PAPER = "#2563eb", "#9ca3af", "#111827", "#ffffff"
WIDTH, ROW, LEFT, BAR = 520, 34, 150, 12


def speeds():
    """Return (file, ggq's tokens per second, llama.cpp's) of decoding, from docs/speed.md."""
    text = (DOCS / "speed.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (1B, [A-Z0-9_]+) \| ([\d.]+) / ([\d.]+) =", text, re.MULTILINE)
    return [(name, float(ours), float(theirs)) for name, ours, theirs in rows]


def distances():
    """Return (model and type, ggq's KL divergence, llama.cpp's) on WikiText-2, docs/quality.md."""
    text = (DOCS / "quality.md").read_text(encoding="utf-8").split("Calibrated on the text that")[0]
    row = r"^\| (\S+ (?:Q4_K_M|Q3_K_M|Q2_K)), `best` \| wiki \| [\d,]+ \| ([\d.]+) \| ([\d.]+) \|"
    return [(name, float(b), float(a)) for name, a, b in re.findall(row, text, re.MULTILINE)]


def bars(title, better, rows):
    """Return an SVG of two bars a row: ggq's above llama.cpp's, each with its figure."""
    height = 58 + ROW * len(rows)
    scale = (WIDTH - LEFT - 70) / max(max(row[1:]) for row in rows)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}">',
        f"<title>{title}, {better}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>',
        f'<text x="12" y="20" font-size="14" font-weight="600">{title}</text>',
        f'<text x="12" y="38">{better}: <tspan fill="{OURS}">■ ggq</tspan> '
        f'<tspan fill="{THEIRS}">■ llama.cpp</tspan></text>',
    ]
    for i, (name, *values) in enumerate(rows):
        top = 50 + ROW * i
        out.append(f'<text x="{LEFT - 8}" y="{top + 17}" text-anchor="end">{name}</text>')
        for j, (value, colour) in enumerate(zip(values, (OURS, THEIRS), strict=True)):
            y, wide = top + j * (BAR + 1), value * scale
            out.append(
                f'<rect x="{LEFT}" y="{y}" width="{wide:.1f}" height="{BAR}" fill="{colour}"/>'
                f'<text x="{LEFT + wide + 5:.1f}" y="{y + 10}" font-size="10.5">{value:g}</text>'
            )
    return "\n".join([*out, "</svg>", ""])


def plots():
    """Return the text of each picture by its name."""
    return {
        "speed.svg": bars("Decoding on two cores, tokens per second", "longer is better", speeds()),
        "quality.svg": bars(
            "Distance from the unquantized model (KL)", "shorter is better", distances()
        ),
    }


def main():
    """Write the pictures."""
    for name, text in plots().items():
        (DOCS / "pictures" / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
