"""A batch in pieces: byte ranges of its input, a file of answers for each, and all as one file.

Whoever answers a range, in whatever order and however often: a part is whole or absent, is named by
its range and a hash of the input there, and counts once. It knows no cluster and no model.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from ggq.errors import UsageError, printable
from ggq.gguf import leftovers
from ggq.outputs import output_file
from ggq.runtime.server.batch import answer_of, custom_id_of, is_failure, resume

__all__ = ["Parts", "Range", "ranges", "requests"]

_PER_RANGE = 64  # requests of a long input; a short one is cut finer, so that all have work
_FEWEST, _SHARES = 4, 32
_ASKED = "asked.json"  # of what model, and how: parts of others are none of ours
_PART = re.compile(r"\d{15}-\d+-[0-9a-f]{16}\.jsonl")


@dataclass(frozen=True)
class Range:
    """A piece of an input: bytes from ``start``, whose first request is the ``number``-th."""

    number: int
    start: int
    raw_bytes: int
    n_lines: int
    digest: str

    @property
    def name(self) -> str:
        """The file name of its part; names sort as the ranges lie."""
        return f"{self.start:015d}-{self.raw_bytes}-{self.digest}.jsonl"

    def read(self, source: Path) -> bytes:
        """Return the bytes; UsageError where they are no longer those that were planned."""
        with source.open("rb") as file:
            file.seek(self.start)
            raw = file.read(self.raw_bytes)
        if _digest(raw) != self.digest:
            raise UsageError(f"{printable(source)}: has changed while it was being answered")
        return raw


def requests(raw: bytes) -> list[bytes]:
    """Return the lines of a range that are not empty."""
    return [line for line in io.BytesIO(raw) if line.strip()]


def ranges(source: Path) -> list[Range]:
    """Cut the input: the same for the same bytes, whoever does it, on however many machines."""
    try:
        with source.open("rb") as file:
            total = sum(1 for line in file if line.strip())
            per = min(_PER_RANGE, max(_FEWEST, total // _SHARES))
            file.seek(0)
            return list(_cut(file, per))
    except OSError as error:
        raise UsageError(f"{printable(source)}: {error.strerror}") from None


def _cut(file: BinaryIO, per: int) -> Iterator[Range]:
    number = start = 0
    held: list[bytes] = []
    count = 0
    for line in file:
        held.append(line)
        count += bool(line.strip())
        if count == per:
            raw = b"".join(held)
            yield Range(number, start, len(raw), count, _digest(raw))
            number, start, count = number + count, start + len(raw), 0
            held.clear()
    if count:
        raw = b"".join(held)
        yield Range(number, start, len(raw), count, _digest(raw))


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:16]


class Parts:
    """The folder ``OUT.parts`` of the parts of one run."""

    def __init__(self, source: Path, out: Path, wanted: Sequence[Range]) -> None:
        """Find what is done; UsageError where OUT or the folder belongs to something else."""
        self.source, self.out, self.ranges = source, output_file(out), wanted
        self.folder = self.out.with_name(self.out.name + ".parts")
        total = sum(one.n_lines for one in wanted)
        done, self.failed = resume(source, self.out)
        self.complete = self.out.exists() and done == total
        if done and not self.complete:
            how = "go on without --cluster, or name another file"
            raise UsageError(f"{printable(out)}: has {done} of {total} answers: {how}")
        if self.folder.exists():
            known = {one.name for one in wanted}
            for path in self.folder.iterdir():
                if _PART.fullmatch(path.name) and path.name not in known:
                    raise self._of_others("another input")

    def _of_others(self, what: str) -> UsageError:
        where = printable(self.folder)
        return UsageError(f"{where}: holds parts of {what}: name another OUT or delete it")

    def belong(self, asked: dict[str, Any]) -> None:
        """Make the folder, or check that its parts are of this model and these settings."""
        path = self.folder / _ASKED
        try:
            self.folder.mkdir(exist_ok=True)
            text = msgspec.json.encode(asked, order="sorted")
            if not path.exists():
                self._write(path, text)
            elif path.read_bytes() != text:
                raise self._of_others("another model or other settings")
        except OSError as error:
            raise UsageError(f"{printable(self.folder)}: {error.strerror}") from None

    def missing(self) -> list[Range]:
        """Return the ranges without a part, in order."""
        return [one for one in self.ranges if not (self.folder / one.name).exists()]

    def put(self, one: Range, lines: Sequence[bytes]) -> None:
        """Write the part of a range: one answer a line, in order, checked against the input."""
        self._check(one, lines)
        try:
            self._write(self.folder / one.name, b"".join(line + b"\n" for line in lines))
        except OSError as error:
            raise UsageError(f"{printable(self.folder)}: {error.strerror}") from None

    def merge(self, progress: Callable[[int], None] = lambda n: None) -> int:
        """Write OUT of all parts and remove them; return how many lines say an error."""
        temp, failed, done = leftovers.temporary(self.out), 0, 0
        leftovers.clear(self.out)
        try:
            with temp.open("xb") as file:
                for one in self.ranges:
                    raw = (self.folder / one.name).read_bytes()
                    lines = raw.split(b"\n")[:-1]
                    failed += self._check(one, lines)
                    file.write(raw)
                    progress(done := done + len(lines))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temp, self.out)
        except OSError as error:
            raise UsageError(f"{printable(self.out)}: {error.strerror}") from None
        finally:
            temp.unlink(missing_ok=True)
        self.remove()
        return failed

    def remove(self) -> None:
        """Remove what this run made in the folder, and the folder if nothing else is in it."""
        with suppress(OSError):
            for one in self.ranges:
                (self.folder / one.name).unlink(missing_ok=True)
            for path in self.folder.glob(".*.part"):
                path.unlink()
            (self.folder / _ASKED).unlink(missing_ok=True)
            self.folder.rmdir()

    def _check(self, one: Range, lines: Sequence[bytes]) -> int:
        """Return how many lines say an error; UsageError where they do not answer the range."""
        asked = requests(one.read(self.source))
        answers = [answer_of(line) for line in lines]
        same = len(asked) == len(answers) and all(
            answer is not None and answer["custom_id"] == custom_id_of(raw)
            for raw, answer in zip(asked, answers, strict=True)
        )
        if not same:
            where = printable(self.folder / one.name)
            raise UsageError(f"{where}: does not answer its lines; delete it and run again")
        return sum(is_failure(answer) for answer in answers if answer is not None)

    def _write(self, path: Path, data: bytes) -> None:
        temp = leftovers.temporary(path)
        try:
            with temp.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temp, path)
        finally:
            temp.unlink(missing_ok=True)
