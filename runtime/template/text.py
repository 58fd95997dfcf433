"""Strings that remember which of their characters a chat template wrote itself.

``Text`` goes through a template like any ``str``. Plain strings count as foreign (a user's text),
and an operation that is not followed here gives a plain string: what is lost is trust, never care.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Iterator
from typing import Any

OWN, FOREIGN = b"\x01", b"\x00"


def mask_of(text: str) -> bytes:
    """Return one byte per character: 1 where the template wrote it, 0 where it is foreign."""
    return text.mask if isinstance(text, Text) else FOREIGN * len(text)


def join(pieces: Iterable[str], separator: str = "") -> Text:
    """Return ``separator.join(pieces)`` with everyone's marks."""
    pieces = list(pieces)
    marks = mask_of(separator).join(map(mask_of, pieces))
    return Text(str.join(separator, pieces), marks)


def join_checked(pieces: Iterable[str], separator: str, check: Callable[[int], None]) -> Text:
    """Join after telling ``check`` how long the result will be."""
    pieces = list(pieces)
    check(sum(map(len, pieces)) + len(separator) * max(len(pieces) - 1, 0))
    return join(pieces, separator)


class Text(str):
    """A string with a mark per character; without a mask all of it is foreign."""

    __slots__ = ("mask",)
    mask: bytes

    def __new__(cls, value: str = "", mask: bytes | None = None) -> Text:
        """Take the characters and their marks."""
        self = super().__new__(cls, value)
        self.mask = FOREIGN * len(self) if mask is None else mask
        assert len(self.mask) == len(self)
        return self

    @classmethod
    def own(cls, value: str) -> Text:
        """Return text that the template wrote itself."""
        return cls(value, OWN * len(value))

    def __str__(self) -> str:
        """Keep the marks where a template converts to a string."""
        return self

    def __add__(self, other: Any) -> Any:
        return join((self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: Any) -> Any:
        return join((other, self)) if isinstance(other, str) else NotImplemented

    def __mul__(self, count: Any) -> Any:
        plain = str.__mul__(self, count)
        return plain if plain is NotImplemented else Text(plain, self.mask * count)

    __rmul__ = __mul__

    def __getitem__(self, key: Any) -> Text:
        plain = super().__getitem__(key)
        mask = self.mask[key]
        return Text(plain, mask if isinstance(mask, bytes) else bytes((mask,)))

    def __iter__(self) -> Iterator[Text]:
        known: dict[tuple[str, int], Text] = {}  # a list of a million letters holds few objects
        for pair in zip(super().__iter__(), self.mask, strict=True):
            if pair not in known:
                known[pair] = Text(pair[0], bytes(pair[1:]))
            yield known[pair]

    def strip(self, chars: str | None = None) -> Text:
        return self.lstrip(chars).rstrip(chars)

    def lstrip(self, chars: str | None = None) -> Text:
        return self[len(self) - len(super().lstrip(chars)) :]

    def rstrip(self, chars: str | None = None) -> Text:
        return self[: len(super().rstrip(chars))]

    def removeprefix(self, prefix: str) -> Text:
        return self[len(prefix) :] if self.startswith(prefix) else self

    def removesuffix(self, suffix: str) -> Text:
        return self[: len(self) - len(suffix)] if suffix and self.endswith(suffix) else self

    def split(self, sep: str | None = None, maxsplit: int = -1) -> list[Text]:  # type: ignore[override]
        return self._words(super().split(sep, maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: int = -1) -> list[Text]:  # type: ignore[override]
        return self._words(super().rsplit(sep, maxsplit), sep)

    def _words(self, parts: list[str], sep: str | None) -> list[Text]:
        if sep is not None:
            return self._laid(parts, len(sep))
        found, position = [], 0
        for part in parts:  # only white space is between, and no part begins with it but the first
            start = self.index(part, position)
            found.append(self[start : start + len(part)])
            position = start + len(part)
        return found

    def splitlines(self, keepends: bool = False) -> list[Text]:  # type: ignore[override]
        lines = self._laid(super().splitlines(True))
        plain = super().splitlines(keepends)
        return [line[: len(kept)] for line, kept in zip(lines, plain, strict=True)]

    def partition(self, sep: str) -> tuple[Text, ...]:  # type: ignore[override]
        return tuple(self._laid(super().partition(sep)))

    def rpartition(self, sep: str) -> tuple[Text, ...]:  # type: ignore[override]
        return tuple(self._laid(super().rpartition(sep)))

    def _laid(self, parts: Iterable[str], gap: int = 0) -> list[Text]:
        """Return ``parts``, which lie one after the other with ``gap`` characters between."""
        found, position = [], 0
        for part in parts:
            found.append(self[position : position + len(part)])
            position += len(part) + gap
        return found

    def replace(self, old: str, new: str, count: int = -1) -> Text:  # type: ignore[override]
        if old == "":
            return Text(super().replace(old, new, count))
        return join(self.split(old, count), new)

    def join(self, parts: Iterable[str]) -> Text:
        return join(parts, self)

    def lower(self) -> Text:
        return self._recased(super().lower())

    def upper(self) -> Text:
        return self._recased(super().upper())

    def title(self) -> Text:
        return self._recased(super().title())

    def capitalize(self) -> Text:
        return self._recased(super().capitalize())

    def _recased(self, plain: str) -> Text:
        return Text(plain, self.mask if len(plain) == len(self) else None)


def format_text(
    template: str, field: Callable[[str], Any], formatter: string.Formatter | None = None
) -> Text:
    """Return ``template.format(...)`` with marks; ``field(name)`` gives the fields' values.

    Raises ValueError for a format spec with a width that is nested or above 999.
    """
    formatter = formatter or string.Formatter()
    own = isinstance(template, Text) and FOREIGN not in template.mask
    pieces: list[str] = []
    for literal, name, spec, conversion in formatter.parse(template):
        pieces.append(Text.own(literal) if own else literal)
        if name is None:
            continue
        if spec and ("{" in spec or any(len(digits) > 3 for digits in _numbers(spec))):
            raise ValueError(f"format spec {spec!r} asks for too much")
        value = formatter.convert_field(field(name), conversion)
        pieces.append(format(value, spec or "") if spec or not isinstance(value, str) else value)
    return join(pieces)


def _numbers(text: str) -> list[str]:
    return "".join(c if c.isdigit() else " " for c in text).split()
