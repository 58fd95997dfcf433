"""jina-embeddings-v2 in plain float64, and tiny random weights of it: transformers lacks the class.

Written from the paper (arXiv 2310.19923) and the names that published checkpoints have.
"""

import numpy as np
from plain_layers import attention, gelu, layer_norm, linear, matrix, wide


def make(rng, n_vocab, n_embd=64, n_ff=96, n_layer=3):
    """Return the tensors of a checkpoint, float32 by name."""
    made = {
        "embeddings.word_embeddings.weight": matrix(rng, n_vocab, n_embd, 4),
        "embeddings.token_type_embeddings.weight": matrix(rng, 2, n_embd, 4),
    }
    norms = ["embeddings.LayerNorm"]
    for i in range(n_layer):
        p = f"encoder.layer.{i}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value"):
            made |= {f"{p}{name}.weight": matrix(rng, n_embd, n_embd), f"{p}{name}.bias": None}
        made |= {f"{p}attention.output.dense.weight": matrix(rng, n_embd, n_embd)}
        made |= {f"{p}mlp.gated_layers.weight": matrix(rng, 2 * n_ff, n_embd)}
        made |= {f"{p}mlp.wo.weight": matrix(rng, n_embd, n_ff), f"{p}mlp.wo.bias": None}
        made[f"{p}attention.output.dense.bias"] = None
        norms += [f"{p}attention.output.LayerNorm", f"{p}mlp.layernorm"]
    for name in norms:
        made |= {f"{name}.weight": 1 + 0.3 * rng.normal(size=n_embd), f"{name}.bias": None}
    bias = {n: 0.3 * rng.normal(size=n_embd) for n, x in made.items() if x is None}
    return {n: np.float32(x) for n, x in (made | bias).items()}


def hidden(tensors, ids, n_head=4, eps=1e-12):
    """Return the states of all tokens, (n_tokens, n_embd)."""
    w, n, places = wide(tensors), len(ids), np.arange(len(ids))
    x = (
        w["embeddings.word_embeddings.weight"][ids]
        + w["embeddings.token_type_embeddings.weight"][0]
    )
    x = layer_norm(w, x, "embeddings.LayerNorm", eps)
    slopes = 2.0 ** (-8 * np.arange(1, n_head + 1) / n_head)  # a power of 2 of heads
    away = -slopes[:, None, None] * abs(places[:, None] - places)
    for i in range(sum(name.endswith("mlp.wo.weight") for name in w)):
        p = f"encoder.layer.{i}."
        heads = (
            linear(w, x, f"{p}attention.self.{name}").reshape(n, n_head, -1)
            for name in ("query", "key", "value")
        )
        y = linear(w, attention(*heads, bias=away), f"{p}attention.output.dense")
        x = layer_norm(w, x + y, f"{p}attention.output.LayerNorm", eps)
        gate, up = np.split(linear(w, x, f"{p}mlp.gated_layers"), 2, axis=-1)
        x = layer_norm(w, x + linear(w, gelu(gate) * up, f"{p}mlp.wo"), f"{p}mlp.layernorm", eps)
    return x
