"""jina-embeddings-v2 in plain float64, and tiny random weights of it: transformers lacks the class.

Written from the paper (arXiv 2310.19923) and the names that published checkpoints have.
"""

import math

import numpy as np


def make(rng, n_vocab, n_embd=64, n_ff=96, n_layer=3):
    """Return the tensors of a checkpoint, float32 by name."""

    def matrix(rows, cols, size=1.5):
        return rng.normal(size=(rows, cols)) * size / cols**0.5

    made = {
        "embeddings.word_embeddings.weight": matrix(n_vocab, n_embd, 4),
        "embeddings.token_type_embeddings.weight": matrix(2, n_embd, 4),
    }
    norms = ["embeddings.LayerNorm"]
    for i in range(n_layer):
        p = f"encoder.layer.{i}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value"):
            made |= {f"{p}{name}.weight": matrix(n_embd, n_embd), f"{p}{name}.bias": None}
        made |= {f"{p}attention.output.dense.weight": matrix(n_embd, n_embd)}
        made |= {f"{p}mlp.gated_layers.weight": matrix(2 * n_ff, n_embd)}
        made |= {f"{p}mlp.wo.weight": matrix(n_embd, n_ff), f"{p}mlp.wo.bias": None}
        made[f"{p}attention.output.dense.bias"] = None
        norms += [f"{p}attention.output.LayerNorm", f"{p}mlp.layernorm"]
    for name in norms:
        made |= {f"{name}.weight": 1 + 0.3 * rng.normal(size=n_embd), f"{name}.bias": None}
    bias = {n: 0.3 * rng.normal(size=n_embd) for n, x in made.items() if x is None}
    return {n: np.float32(x) for n, x in (made | bias).items()}


def hidden(tensors, ids, n_head=4, eps=1e-12):
    """Return the states of all tokens, (n_tokens, n_embd)."""
    w = {name: x.astype(np.float64) for name, x in tensors.items()}

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def gelu(x):
        return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))

    n, places = len(ids), np.arange(len(ids))
    x = (
        w["embeddings.word_embeddings.weight"][ids]
        + w["embeddings.token_type_embeddings.weight"][0]
    )
    x = norm(x, "embeddings.LayerNorm")
    width = x.shape[1] // n_head
    for i in range(sum(name.endswith("mlp.wo.weight") for name in w)):
        p = f"encoder.layer.{i}."
        q, k, v = (
            linear(x, f"{p}attention.self.{name}").reshape(n, n_head, width)
            for name in ("query", "key", "value")
        )
        scores = np.einsum("qhd,khd->hqk", q, k) / width**0.5
        slopes = 2.0 ** (-8 * np.arange(1, n_head + 1) / n_head)  # a power of 2 of heads
        scores -= slopes[:, None, None] * abs(places[:, None] - places)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        y = np.einsum("hqk,khd->qhd", scores / scores.sum(-1, keepdims=True), v).reshape(n, -1)
        y = linear(y, f"{p}attention.output.dense")
        x = norm(x + y, f"{p}attention.output.LayerNorm")
        gate, up = np.split(linear(x, f"{p}mlp.gated_layers"), 2, axis=-1)
        x = norm(x + linear(gelu(gate) * up, f"{p}mlp.wo"), f"{p}mlp.layernorm")
    return x
