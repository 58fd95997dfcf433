"""Byte-pair merging in plain Python, for short texts: at hand as soon as the merges are read.

The ``tokenizers`` package first turns all merges into tables of its own, which takes as long as the
rest of a start; a prompt of a line does not need them. Same tokens (tests/test_tokenizers.py).
"""

from __future__ import annotations

from itertools import pairwise

__all__ = ["Merging"]


class Merging:
    """Merges of a byte-level vocabulary: of the pairs in a word the one of lowest rank, again."""

    def __init__(self, vocab: dict[str, int], merges: list[str], ignore_merges: bool) -> None:
        self._vocab, self._ignore_merges = vocab, ignore_merges
        self._rank = dict(zip(merges, range(len(merges)), strict=True))  # the last of equals counts

    @staticmethod
    def suits(vocab: dict[str, int], merges: list[str]) -> bool:
        """Tell whether each merge is two pieces with one space between that make a known token."""
        whole = "\0" + "\0".join(merges) + "\0"
        if whole.count(" ") != len(merges) or not all(" " in merge for merge in merges):
            return False
        if "\0 " in whole or " \0" in whole:
            return False
        made = whole.replace(" ", "").split("\0")[1:-1]
        return len(made) == len(merges) and all(map(vocab.__contains__, made))

    def ids(self, word: str) -> list[int]:
        """Return the tokens of a word; characters that are no token are left out."""
        if self._ignore_merges and word in self._vocab:
            return [self._vocab[word]]
        parts = [char for char in word if char in self._vocab]
        while len(parts) > 1:
            ranks = [self._rank.get(f"{a} {b}", -1) for a, b in pairwise(parts)]
            known = [rank for rank in ranks if rank >= 0]
            if not known:
                break
            at = ranks.index(min(known))
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return [self._vocab[part] for part in parts]
