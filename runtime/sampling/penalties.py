"""Samplers that change single logits: bias, repeat, presence, frequency and DRY penalties.

They know the history of token ids, never text: DRY's breaker strings are turned into ids here once.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ggq.runtime.sampling.candidates import Candidates

_BREAKER_CHARS, _BREAKER_TOKENS = 40, 20  # longest breaker string and tail, as in llama.cpp
_FLOAT32_MAX_LOG = 88.7228391
Breakers = Mapping[int, tuple[tuple[int, ...], ...]]  # first token -> tails that complete a breaker


def add_bias(c: Candidates, bias: Mapping[int, float]) -> Candidates:
    """Add ``bias`` to the logits of single tokens; -inf forbids a token."""
    if not bias:
        return c
    values = np.fromiter(bias.values(), np.float32, len(bias))
    return _changed(c, np.fromiter(bias, np.int64, len(bias)), lambda old, of: old + values[of])


def penalise(
    c: Candidates, counts: Mapping[int, int], repeat: float, presence: float, frequency: float
) -> Candidates:
    """Lower the logits of tokens that occurred ``counts`` times.

    The repeat penalty divides positive and multiplies negative logits (CTRL, Keskar et al. 2019,
    with the sign repaired); presence is subtracted once, frequency once per occurrence.
    """
    if not counts or (repeat == 1.0 and presence == 0.0 and frequency == 0.0):
        return c
    times = np.fromiter(counts.values(), np.float32, len(counts))

    def lowered(old: np.ndarray, of: np.ndarray) -> np.ndarray:
        scaled = np.where(old > 0, old / np.float32(repeat), old * np.float32(repeat))
        found: np.ndarray = scaled - (times[of] * np.float32(frequency) + np.float32(presence))
        return found

    return _changed(c, np.fromiter(counts, np.int64, len(counts)), lowered)


def dry(
    c: Candidates, lengths: Mapping[int, int], multiplier: float, base: float, allowed: int
) -> Candidates:
    """Lower by ``multiplier * base ** (length - allowed)`` the tokens that prolong a repetition."""
    if not lengths:
        return c
    exponents = np.fromiter(lengths.values(), np.float64, len(lengths)) - allowed
    penalty = (multiplier * base ** np.minimum(exponents, _max_exponent(base))).astype(np.float32)
    tokens = np.fromiter(lengths, np.int64, len(lengths))
    return _changed(c, tokens, lambda old, of: old - penalty[of])


def repeat_lengths(
    history: list[int], allowed: int, base: float, breakers: Breakers
) -> dict[int, int]:
    """Return, for each token that would prolong a repetition, the longest such repetition.

    A repetition is an end of ``history`` that occurs earlier too (DRY, "don't repeat yourself"),
    of at least ``allowed`` tokens and without a breaker inside.
    """
    limit = _restart(history, breakers)
    recent = np.array(history[::-1], np.int64)
    starts = np.arange(1, len(recent))
    lengths: dict[int, int] = {}
    longest = min(limit, allowed + int(min(_max_exponent(base), len(recent))))
    if allowed == 0 and limit >= 0:
        lengths.update(dict.fromkeys(recent[:-1].tolist(), 0))
    for length in range(1, longest + 1):
        starts = starts[starts + length <= len(recent)]
        starts = starts[recent[starts + length - 1] == recent[length - 1]]
        if not len(starts):
            break
        if length >= allowed:
            lengths.update(dict.fromkeys(recent[starts - 1].tolist(), length))
    return {t: n for t, n in lengths.items() if () not in breakers.get(t, ())}


_breakers_of: WeakKeyDictionary[Any, dict[tuple[str, ...], Breakers]] = WeakKeyDictionary()
_MOST_SETS = 4  # of strings that are remembered of a tokenizer


def breaker_tokens(tokenizer: Any, strings: tuple[str, ...]) -> Breakers:
    """Return the token sequences in which one of ``strings`` can appear, by first token."""
    known = _breakers_of.setdefault(tokenizer, {})
    if strings not in known:
        while len(known) >= _MOST_SETS:
            known.pop(next(iter(known)), None)
        known[strings] = _breaker_tokens(tokenizer, strings)
    return known[strings]


def _breaker_tokens(tokenizer: Any, strings: tuple[str, ...]) -> Breakers:
    found: dict[int, set[tuple[int, ...]]] = {}
    pieces = [tokenizer.token_bytes(token) for token in range(tokenizer.n_vocab)]
    for string in strings:
        breaker = string.encode()[:_BREAKER_CHARS]
        for token, piece in enumerate(pieces):
            for rest in _unfinished(piece, breaker):
                tail = tokenizer.encode(rest, add_special=False) if rest else []
                found.setdefault(token, set()).add(tuple(tail[:_BREAKER_TOKENS]))
    return {token: tuple(tails) for token, tails in found.items()}


def _unfinished(piece: bytes, breaker: bytes) -> Iterable[str]:
    """Yield what of ``breaker`` must follow ``piece``: nothing if inside, a rest per overlap."""
    if not breaker or not piece:
        return
    if breaker in piece:
        yield ""
        return
    for overlap in range(1, min(len(piece), len(breaker) - 1) + 1):
        if piece.endswith(breaker[:overlap]):
            yield breaker[overlap:].decode("utf-8", "ignore")


def _restart(history: list[int], breakers: Breakers) -> int:
    """Return how many tokens follow the last breaker; all when there is none."""
    size = len(history)
    for distance in range(size if breakers else 0):
        tails = breakers.get(history[size - 1 - distance], ())
        after = tuple(history[size - distance :])
        matches = [len(tail) for tail in tails if after[: len(tail)] == tail]
        if matches:
            return distance - max(matches)
    return size


def _max_exponent(base: float) -> float:
    # the penalty must stay a float32
    return _FLOAT32_MAX_LOG // math.log(base) if base > 1.000001 else math.inf


def _changed(
    c: Candidates, tokens: np.ndarray, change: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Candidates:
    """Return ``c`` with ``change(old logits, index into tokens)`` where ``tokens`` are."""
    here, of = c.positions(tokens)
    logits = c.logits.copy()
    logits[here] = change(logits[here], of)
    return c.with_logits(logits)
