"""Grammars and JSON schemas as constraints of sampling, by the llguidance package.

It knows token bytes, not models; complexity is capped by llguidance's own limits.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from ggq.errors import UsageError, printable
from ggq.extras import how_to_install
from ggq.runtime.formats.base import JSON_STYLE
from ggq.runtime.grammar.gbnf import gbnf_to_lark
from ggq.runtime.grammar.holdable import MOST_OPTIONAL
from ggq.runtime.sampling.sampler import Constraint

__all__ = ["AfterReasoning", "GrammarCompiler", "GrammarError", "MakeConstraint", "begun_with"]

MakeConstraint = Callable[[], Constraint]  # for one answer
_ITEMS = 5 * MOST_OPTIONAL  # a place where any of them may come takes 4 items for each


class GrammarError(UsageError):
    """A grammar or schema that cannot be used; ``field`` is who gave it.

    ``missing``: it could be, had the package that compiles it been installed.
    """

    def __init__(
        self, where: str, problem: str, field: str | None = None, missing: bool = False
    ) -> None:
        """Take the place at fault, what is wrong there, and the field that it is a part of."""
        super().__init__(f"{where}: {problem}")
        self.field, self.missing = field or where, missing


class _Vocabulary:
    """A ggq tokenizer in the shape that llguidance reads."""

    def __init__(self, tokenizer: Any):
        ids = range(tokenizer.n_vocab)
        ends = sorted(tokenizer.eog_ids)
        self.eos_token_id = tokenizer.eos_id if tokenizer.eos_id in ends else ends[0]
        self.bos_token_id = tokenizer.bos_id
        self.tokens = [tokenizer.token_bytes(i) for i in ids]
        self.special_token_ids = [i for i in ids if tokenizer.is_control(i)]
        self._encode = tokenizer.encode

    def __call__(self, text: bytes | str) -> list[int]:
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        found: list[int] = self._encode(text, add_special=False)
        return found


class GrammarCompiler:
    """Compiles grammars for one tokenizer; the vocabulary is read on first use."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._vocabulary: Any = None

    def json(self, schema: dict[str, Any], field: str) -> MakeConstraint:
        """Return a factory of constraints to JSON under a schema."""
        lib = _library(field)
        try:
            text = lib.LLMatcher.grammar_from_json_schema(schema, overrides=JSON_STYLE)
        except (ValueError, TypeError, RecursionError) as error:
            raise GrammarError(field, _first_line(error)) from None
        return self._factory(text, field)

    def grammar(self, text: str, field: str) -> MakeConstraint:
        """Return a factory of constraints to a grammar in llama.cpp's GBNF or in Lark."""
        lib = _library(field)
        if "::=" in text:
            try:
                translate = lib.gbnf_to_lark.gbnf_to_lark
                text = gbnf_to_lark(text, self._tokenizer.ids.get, translate)
            except Exception as error:  # its parser raises many kinds on wrong input
                raise GrammarError(field, _first_line(error)) from None
        return self.lark(text, field)

    def lark(self, text: str, field: str) -> MakeConstraint:
        """Return a factory of constraints to a grammar in Lark."""
        return self._factory(_library(field).LLMatcher.grammar_from_lark(text), field)

    def _factory(self, grammar: str, field: str) -> MakeConstraint:
        lib = _library(field)
        with self._lock:
            if self._vocabulary is None:
                words = _Vocabulary(self._tokenizer)
                wrapper = lib.TokenizerWrapper(words)
                ends = sorted(self._tokenizer.eog_ids)
                self._vocabulary = lib.LLTokenizer(wrapper, eos_token=ends)
        limits = lib.LLParserLimits(max_items_in_row=_ITEMS)
        matcher = lib.LLMatcher(self._vocabulary, grammar, log_level=0, limits=limits)
        if matcher.is_error():
            raise GrammarError(field, _first_line(matcher.get_error()))
        first = matcher.deep_copy()
        first.compute_bitmask()
        if first.is_error():
            raise GrammarError(field, "no text fits it, it never comes to an end")
        ends = self._tokenizer.eog_ids
        return lambda: _Matched(matcher.deep_copy(), ends)


class _Matched:
    """One answer's place in a grammar: sampling.sampler.Constraint."""

    def __init__(self, matcher: Any, ends: frozenset[int]):
        self._matcher, self._ends = matcher, ends

    def allows(self, token: int) -> bool:
        if token in self._ends:
            return bool(self._matcher.is_accepting() or self._matcher.is_stopped())
        return bool(self._matcher.validate_tokens([token]) == 1)

    def mask(self, logits: np.ndarray) -> np.ndarray:
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, bitorder="little")[: len(logits)].astype(bool)
        if self._matcher.is_error():
            raise UsageError(f"grammar: {_first_line(self._matcher.get_error())}")
        out = np.full(len(logits), -np.inf, np.float32)
        out[: len(allowed)][allowed] = logits[: len(allowed)][allowed]
        return out

    def accept(self, token: int) -> None:
        if token not in self._ends and not self._matcher.consume_token(token):
            raise UsageError(f"grammar: {_first_line(self._matcher.get_error())}")


class AfterReasoning:
    """A constraint that begins after a closing mark: thoughts are free, the answer is not."""

    def __init__(self, inner: Constraint, tokenizer: Any, closing: str):
        self._inner, self._tokenizer, self._closing = inner, tokenizer, closing.encode()
        self._tail, self._on = b"", False

    def allows(self, token: int) -> bool:
        return self._inner.allows(token) if self._on else token not in self._tokenizer.eog_ids

    def mask(self, logits: np.ndarray) -> np.ndarray:
        if self._on:
            return self._inner.mask(logits)
        out: np.ndarray = logits.copy()
        out[sorted(self._tokenizer.eog_ids)] = -np.inf
        return out

    def accept(self, token: int) -> None:
        if self._on:
            self._inner.accept(token)
            return
        self._tail = (self._tail + self._tokenizer.token_bytes(token))[-256:]
        self._on = self._closing in self._tail


def begun_with(make: MakeConstraint, tokenizer: Any, begun: str) -> MakeConstraint:
    """Return a factory of constraints that have seen how the answer begins.

    GrammarError, of the field messages, where it begins otherwise than it may.
    """
    ids = tokenizer.encode(begun, add_special=False, parse_special=False)

    def made() -> Constraint:
        constraint = make()
        for token in ids:
            if not constraint.allows(token):
                problem = "the answer begun is not what the format or tools ask for"
                raise GrammarError("messages", problem)
            constraint.accept(token)
        return constraint

    made()
    return made


def _library(field: str) -> Any:
    try:
        lib = importlib.import_module("llguidance")
        importlib.import_module("llguidance.gbnf_to_lark")
    except ImportError:
        message = f"needs the package llguidance ({how_to_install('serve')})"
        raise GrammarError(field, message, missing=True) from None
    return lib


def _first_line(error: object) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(" ".join(lines[:2]) or type(error).__name__, 300)
