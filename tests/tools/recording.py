"""Records the chat in a terminal as an animated SVG: `python tests/tools/recording.py MODEL OUT`.

The program runs in a real pseudo-terminal, typed into as by hand; `pyte` (pip install pyte) says
what its screen shows. Frames follow each other at the pace at which they came.
"""

import fcntl
import html
import os
import pty
import select
import struct
import sys
import termios
import time
from pathlib import Path

import pyte

COLUMNS, LINES = 84, 24
LINE, WIDTH = 19.0, 8.45  # pixels
KEY = 0.05  # seconds between keys
HOLD = 4.0  # seconds at the end
QUESTION = "Write a Python function that tells whether a number is prime. Only code."
TYPED = (QUESTION, "/info", "/bye")
BACK, TEXT = "#16181d", "#d8dbe2"
COLOURS = {
    **{"black": "#3b4048", "red": "#e06c75", "green": "#98c379", "brown": "#e5c07b"},
    **{"blue": "#61afef", "magenta": "#c678dd", "cyan": "#56b6c2", "white": TEXT},
}


def record(model):
    """Return [(seconds, rows)] of all screens that differ, rows as [(text, style)] runs."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    pid, fd = pty.fork()
    if pid == 0:
        os.environ |= {"TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"}
        os.environ.pop("NO_COLOR", None)
        os.execv(sys.executable, [sys.executable, "-m", "ggq", "chat", model, "--temp", "0"])
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    frames, start = [], time.monotonic()

    def look(seconds, until=""):
        """Take what the program writes for some seconds, or until its prompt is there again."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if select.select([fd], [], [], 0.04)[0]:
                try:
                    stream.feed(os.read(fd, 65536))
                except OSError:  # Linux: the other end is closed
                    return
            rows = _rows(screen)
            if not frames or frames[-1][1] != rows:
                frames.append((time.monotonic() - start, rows))
            if until and screen.display[screen.cursor.y].startswith(until):
                return

    look(60, ">>>")
    frames[:] = [(0.0, frames[-1][1])]
    start = time.monotonic()
    for line in TYPED:
        look(1.0)
        for key in line:
            os.write(fd, key.encode())
            look(KEY)
        os.write(fd, b"\r")
        look(0.5)
        look(60, ">>>")
    os.close(fd)
    os.waitpid(pid, 0)
    return frames


def _rows(screen):
    """Return the screen as a tuple of rows of (column, text, colour, bold, dim) runs."""
    rows = []
    for y in range(LINES):
        runs = []
        for x in range(COLUMNS):
            cell = screen.buffer[y][x]
            style = (_colour(cell.fg), cell.bold, cell.italics)
            if runs and runs[-1][2:] == style and runs[-1][0] + len(runs[-1][1]) == x:
                runs[-1] = (runs[-1][0], runs[-1][1] + (cell.data or " "), *style)
            else:
                runs.append((x, cell.data or " ", *style))
        rows.append(tuple(run for run in runs if run[1].strip()))
    return tuple(rows)


def _colour(name):
    return COLOURS.get(name.removeprefix("bright"), TEXT if name == "default" else f"#{name}")


def drawn(frames):
    """Return the SVG text: a group per frame, shown for its time, again and again."""
    total = frames[-1][0] + HOLD
    width, height = COLUMNS * WIDTH + 32, LINES * LINE + 32
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'font-family="ui-monospace,Menlo,Consolas,monospace" font-size="14">',
        f'<rect width="100%" height="100%" rx="8" fill="{BACK}"/>',
        "<style>text{white-space:pre}g.f{visibility:hidden}"
        f"g.f{{animation:{total:.2f}s step-end infinite}}",
    ]
    ends = [at for at, _ in frames[1:]] + [total]
    for n, ((at, _), end) in enumerate(zip(frames, ends, strict=True)):
        a, b = 100 * at / total, 100 * end / total
        shown = "{visibility:visible}"
        hidden = "{visibility:hidden}"
        rest = f"{b:.3f}%,100%{hidden}" if b < 100 else ""
        out.append(f"@keyframes k{n}{{0%{shown if a == 0 else hidden}{a:.3f}%{shown}{rest}}}")
        out.append(f"#f{n}{{animation-name:k{n}}}")
    out.append("</style>")
    for n, (_, rows) in enumerate(frames):
        out.append(f'<g class="f" id="f{n}">')
        for y, runs in enumerate(rows):
            for x, text, colour, bold, italic in runs:
                more = ' font-weight="bold"' * bold + ' font-style="italic"' * italic
                stripped = text.rstrip()
                out.append(
                    f'<text x="{16 + x * WIDTH:.1f}" y="{30 + y * LINE:.0f}" fill="{colour}"{more} '
                    f'textLength="{len(stripped) * WIDTH:.1f}">{html.escape(stripped)}</text>'
                )
        out.append("</g>")
    return "\n".join([*out, "</svg>\n"])


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(drawn(record(sys.argv[1])), encoding="utf-8")
