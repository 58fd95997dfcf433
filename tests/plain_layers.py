"""Pieces of models in plain float64, for those that transformers does not have; no tests here.

``w``: a checkpoint's tensors by name, float64; ``x``: states, (n_tokens, width).
"""

import math

import numpy as np


def wide(tensors):
    """Return tensors in float64."""
    return {name: x.astype(np.float64) for name, x in tensors.items()}


def matrix(rng, rows, cols, size=1.5):
    """Return a random matrix at which scores matter."""
    return np.float32(rng.normal(size=(rows, cols)) * size / cols**0.5)


def linear(w, x, name):
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)


def layer_norm(w, x, name, eps):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)
    return x * w[f"{name}.weight"] + w[f"{name}.bias"]


def rms_norm(w, x, name, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w[f"{name}.weight"]


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def rotated(x, base):
    """Return heads (n_tokens, n_head, width) turned by their positions, halves as pairs."""
    half = x.shape[-1] // 2
    angles = np.arange(len(x))[:, None] * base ** (-np.arange(half) / half)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


def attention(q, k, v, seen=True, bias=0.0):
    """Return the mix of values (n_tokens, n_head * width); ``seen`` (n_tokens, n_tokens)."""
    k, v = (np.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))
    scores = np.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5 + bias
    scores = softmax(np.where(seen, scores, -np.inf))
    return np.einsum("hqk,khd->qhd", scores, v).reshape(len(q), -1)


def llama_attention(w, x, p, width, base, window=None):
    """Return what a layer's attention makes of ``x``; no ``base``: without positions."""
    n = len(x)
    q, k, v = (linear(w, x, f"{p}self_attn.{name}_proj").reshape(n, -1, width) for name in "qkv")
    if base:
        q, k = rotated(q, base), rotated(k, base)
    away = np.arange(n)[:, None] - np.arange(n)
    seen = (away >= 0) & (away < (window or n))
    return linear(w, attention(q, k, v, seen), f"{p}self_attn.o_proj")


def mixture(logits, n_used, weigh, expert):
    """Return the weighted sum of each token's best experts; ``expert(e, token)``: one's output.

    ``weigh``: what makes weights of the logits (n_tokens, n_used) of the chosen.
    """
    best = np.argsort(-logits, axis=-1, kind="stable")[:, :n_used]
    weights = weigh(np.take_along_axis(logits, best, axis=-1))
    return np.stack(
        [
            sum(w * expert(e, t) for w, e in zip(weights[t], best[t], strict=True))
            for t in range(len(best))
        ]
    )
