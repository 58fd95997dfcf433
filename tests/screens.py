"""A terminal as far as answers use one: text, line ends, the cursor up, clearing below."""

import re

_CSI = re.compile(r"\x1b\[([0-9;]*)([A-Za-z])")


class Screen:
    """Rows of characters; what scrolls off the top can not be reached any more."""

    def __init__(self, columns, lines):
        self.columns, self.lines = columns, lines
        self.rows, self.row, self.column = [""], 0, 0

    def write(self, text):
        at = 0
        while at < len(text):
            if match := _CSI.match(text, at):
                self._control(match[1], match[2])
                at = match.end()
                continue
            self._put(text[at])
            at += 1

    def flush(self):
        pass

    def isatty(self):
        return True

    def shown(self):
        return [row.rstrip() for row in self.rows]

    def _control(self, number, kind):
        if kind == "A":
            top = max(0, len(self.rows) - self.lines)
            assert self.row - int(number or 1) >= top, "the cursor left the screen"
            self.row -= int(number or 1)
        elif kind == "J":
            del self.rows[self.row + 1 :]
            self.rows[self.row] = self.rows[self.row][: self.column]
        else:
            assert kind == "m", kind

    def _put(self, char):
        if char == "\r":
            self.column = 0
        elif char == "\n":
            self.row += 1
            if self.row == len(self.rows):
                self.rows.append("")
        else:
            if self.column == self.columns:
                self._put("\r")
                self._put("\n")
            row = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = row[: self.column] + char + row[self.column + 1 :]
            self.column += 1
