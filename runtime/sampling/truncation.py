"""Samplers that drop candidates: top-k, top-p, min-p, typical, top-n-sigma, XTC.

Each takes the candidates and its numbers and returns candidates, never none; the order in which
they run is the sampler's business.
"""

import math

import numpy as np

from ggq.runtime.sampling.candidates import Candidates, softmax

_FIRST_HEAD = 256  # tokens sorted at first to reach top-p: nearly always enough


def top_k(c: Candidates, k: int) -> Candidates:
    """Keep the ``k`` highest logits; 0 keeps all (llama.cpp's top-k)."""
    return c.top(k) if k > 0 else c


def top_p(c: Candidates, p: float) -> Candidates:
    """Keep the fewest likeliest tokens whose probabilities sum to ``p`` (Holtzman et al. 2020)."""
    if p >= 1.0:
        return c
    highest = float(c.logits.max())
    total = np.exp(c.logits - highest).sum(dtype=np.float64)
    head_size = _FIRST_HEAD
    while True:
        head = c.top(head_size)
        cumulative = np.cumsum(np.exp(head.logits.astype(np.float64) - highest)) / total
        if cumulative[-1] >= p or len(head) == len(c):
            break
        head_size = len(c)
    keep = min(int(np.searchsorted(cumulative, p)) + 1, len(head))
    return head.take(slice(keep), is_sorted=True)


def min_p(c: Candidates, p: float) -> Candidates:
    """Keep tokens at least ``p`` times as likely as the likeliest (Nguyen et al. 2024)."""
    if p <= 0.0:
        return c
    bound = float(c.logits.max()) + math.log(min(p, 1.0))
    return c.take(c.logits >= bound, is_sorted=c.is_sorted)


def typical(c: Candidates, p: float) -> Candidates:
    """Keep the tokens whose surprise is nearest to the entropy, up to mass ``p`` (Meister 2023)."""
    if p >= 1.0:
        return c
    probabilities = softmax(c.logits)
    surprise = -np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    entropy = float(np.sum(probabilities * surprise, dtype=np.float64))
    order = np.argsort(np.abs(surprise - entropy), kind="stable")
    cumulative = np.cumsum(probabilities[order], dtype=np.float64)
    keep = min(int(np.searchsorted(cumulative, p, side="right")) + 1, len(c))
    return c.take(np.sort(order[:keep]), is_sorted=c.is_sorted)


def top_n_sigma(c: Candidates, n: float) -> Candidates:
    """Keep logits within ``n`` standard deviations of the highest (Tang et al. 2024)."""
    if n <= 0.0 or len(c) < 2:
        return c
    finite = c.logits[np.isfinite(c.logits)]
    deviation = float(finite.std(dtype=np.float64))
    return c.take(c.logits >= float(c.logits.max()) - n * deviation, is_sorted=c.is_sorted)


def xtc(
    c: Candidates, probability: float, threshold: float, rng: np.random.Generator
) -> Candidates:
    """With a chance of ``probability`` drop all but the last token above ``threshold``.

    "Exclude top choices": the likely but dull continuations go, one viable stays.
    """
    if probability <= 0.0 or threshold > 0.5:
        return c
    if rng.random() > probability or len(c) < 2:  # drawn first: later draws count on it
        return c
    ordered = c.sorted()
    above = int(np.count_nonzero(softmax(ordered.logits) >= threshold))
    return ordered.take(slice(max(above - 1, 0), None), is_sorted=True)
