"""Thoughts: how long they may be, and whether they stand beside what is said or in it.

It knows the marks of a format and no interface. The budget is a constraint of sampling: where it
is spent, the mark that closes thoughts is the only thing that may come next.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ggq.runtime.formats.base import CONTENT, REASONING, Delta, Format
from ggq.runtime.grammar.compiler import MakeConstraint
from ggq.runtime.sampling.sampler import Constraint

__all__ = ["Budgets", "Placed"]

_USUAL = "<think>", "</think>"  # for formats whose thoughts are messages of their own


class Budgets:
    """Limits the thoughts of one model's answers to ``usual`` tokens, -1 for no limit."""

    def __init__(self, tokenizer: Any, form: Format, usual: int = -1) -> None:
        self._tokenizer, self._usual = tokenizer, usual
        opening, closing, end = form.thoughts
        self._marks = opening.strip().encode(), closing.strip().encode()
        self._end = tokenizer.encode(end, add_special=False, parse_special=True) if end else []

    def over(
        self, make: MakeConstraint | None, asked: int | None, thinking: bool
    ) -> MakeConstraint | None:
        """Return a factory of constraints with a budget: ``asked``, else the usual one.

        ``thinking``: the prompt has opened thoughts; the answer may do so, too.
        """
        budget = self._usual if asked is None else asked
        if budget < 0 or not self._end:
            return make
        limits = budget, self._end, self._marks
        return lambda: _Budget(make and make(), self._tokenizer, limits, thinking)


class _Budget:
    """One answer's thoughts, counted, over a constraint of the whole answer, if there is one."""

    def __init__(
        self,
        inner: Constraint | None,
        tokenizer: Any,
        limits: tuple[int, list[int], tuple[bytes, bytes]],
        thinking: bool,
    ) -> None:
        """``limits``: tokens, those that close thoughts, and the marks around thoughts."""
        self._inner, self._tokenizer = inner, tokenizer
        self._left, self._end, (self._opening, self._closing) = limits
        self._thinking = thinking
        self._over = False  # whether thoughts are done with
        self._tail = b""
        self._forced: list[int] = []  # what has to come
        self._spend(0)

    def allows(self, token: int) -> bool:
        if self._forced:
            return token == self._forced[0]
        return self._inner is None or self._inner.allows(token)

    def mask(self, logits: np.ndarray) -> np.ndarray:
        if not self._forced:
            return logits if self._inner is None else self._inner.mask(logits)
        out = np.full(len(logits), -np.inf, np.float32)
        out[self._forced[0]] = max(float(logits[self._forced[0]]), -1e30)
        return out

    def accept(self, token: int) -> None:
        if self._inner is not None:
            self._inner.accept(token)
        if self._over:
            return
        self._tail = (self._tail + self._tokenizer.token_bytes(token))[-256:]
        if self._forced:
            self._forced = self._forced[1:]
            self._over = not self._forced
        elif not self._thinking:
            self._thinking = self._opening in self._tail
            said = self._tail.strip()  # thoughts come first or not at all
            may_come = self._opening.startswith(said[: len(self._opening)])
            self._over = not self._thinking and not may_come
            self._spend(0)
        elif self._closing in self._tail:
            self._over = True
        else:
            self._spend(1)

    def _spend(self, n: int) -> None:
        """Count tokens of thoughts; close them where none is left."""
        self._left -= n
        if self._thinking and self._left <= 0:
            self._forced = self._end


class Placed:
    """The deltas of one answer with its thoughts where ``form`` says, as llama-server has it.

    auto and deepseek: beside what is said; none: in it, between the model's marks; deepseek-legacy:
    both. ``opened``: the prompt has the opening mark, so that the answer lacks it.
    """

    def __init__(self, form: str, marks: tuple[str, str], opened: bool) -> None:
        self._form = form
        opening, self._closing = marks if marks[0] else _USUAL
        self._opening = "" if opened and form == "none" else opening
        self._inside = False

    def of(self, deltas: list[Delta]) -> list[Delta]:
        """Return what a client is shown of deltas."""
        if self._form not in ("none", "deepseek-legacy"):
            return deltas
        out: list[Delta] = []
        for delta in deltas:
            if delta.kind != REASONING:
                if self._inside:
                    self._inside = False
                    out.append(Delta(CONTENT, f"\n{self._closing.strip()}\n\n"))
                out.append(delta)
                continue
            if self._form != "none":
                out.append(delta)
            head = "" if self._inside else f"{self._opening.strip()}\n" if self._opening else ""
            self._inside = True
            out.append(Delta(CONTENT, head + delta.text))
        return out
