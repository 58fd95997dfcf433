"""Typed, checked access to the tokenizer keys of a GGUF file.

Takes any mapping (a GGUFFile's metadata or a dict); every complaint names the key. It does not
know what a tokenizer does with the values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ggq.errors import FormatError, printable
from ggq.gguf.metadata import StringArray

PREFIX = "tokenizer.ggml."
ABSENT_ID = 0xFFFFFFFF  # some converters write "no such token" as -1 in an unsigned field


class TokenizerMetadata:
    """The keys ``tokenizer.ggml.*`` of one file, by their short names."""

    def __init__(self, source: Any) -> None:
        self.source: Mapping[str, Any] = getattr(source, "metadata", source)

    def __contains__(self, name: str) -> bool:
        return PREFIX + name in self.source

    def _get(self, name: str) -> Any:
        return self.source.get(PREFIX + name)

    def fail(self, name: str, complaint: str) -> FormatError:
        """Return the error for a bad value of key ``name``."""
        return FormatError(f"{PREFIX}{name}: {complaint}")

    def text(self, name: str, default: str = "") -> str:
        """Return a string value; FormatError if it is not one."""
        value = self._get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.fail(name, f"expected a string, found {type(value).__name__}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """Return a boolean value; FormatError if it is not one."""
        value = self._get(name)
        if value is None:
            return default
        if not isinstance(value, (bool, np.bool_)):
            raise self.fail(name, f"expected true or false, found {printable(repr(value))}")
        return bool(value)

    def strings(self, name: str) -> list[str]:
        """Return an array of strings as text; FormatError where absent or of another type."""
        value = self._get(name)
        if value is None:
            raise self.fail(name, "the key is missing")
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise self.fail(name, "expected an array of strings")
        if isinstance(value, StringArray):
            return value.texts()
        try:
            return _decoded(list(value))
        except (AttributeError, TypeError):
            raise self.fail(name, "expected an array of strings") from None

    def numbers(self, name: str, length: int, dtype: type) -> np.ndarray | None:
        """Return an array of at least ``length`` numbers cut to it, None where absent."""
        value = self._get(name)
        if value is None:
            return None
        array = np.asarray(value) if isinstance(value, (list, tuple, np.ndarray)) else None
        if array is None or array.ndim != 1 or array.dtype.kind not in "iufb":
            raise self.fail(name, "expected an array of numbers")
        if len(array) < length:
            raise self.fail(name, f"{len(array)} entries for {length} tokens")
        return array[:length].astype(dtype)

    def token_id(self, name: str, n_vocab: int, default: int | None) -> int | None:
        """Return a token id; FormatError if it is not inside the vocabulary."""
        value = self._get(name)
        if value is None or value in (ABSENT_ID, -1):
            fallback = default if value is None else None
            return fallback if fallback is not None and fallback < n_vocab else None
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise self.fail(name, f"expected a token id, found {printable(repr(value))}")
        if not 0 <= value < n_vocab:
            raise self.fail(name, f"token id {value} is outside the vocabulary of {n_vocab}")
        return int(value)


def _decoded(items: list[Any]) -> list[str]:
    """Return bytes (or str) items as text."""
    return [item if isinstance(item, str) else item.decode("utf-8", "replace") for item in items]
