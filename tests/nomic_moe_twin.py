"""nomic-embed-text-v2-moe in plain float64, and tiny random weights of it: transformers lacks it.

Written from the report (arXiv 2502.07972) and the names that published checkpoints have.
"""

import numpy as np
from plain_layers import (
    attention,
    gelu,
    layer_norm,
    linear,
    matrix,
    mixture,
    rotated,
    softmax,
    wide,
)

EXPERTS, USED, EVERY = 4, 2, 2


def make(rng, n_vocab, n_embd=64, n_ff=96, n_layer=3):
    """Return the tensors of a checkpoint, float32 by name."""
    made = {
        "embeddings.word_embeddings.weight": matrix(rng, n_vocab, n_embd, 4),
        "embeddings.token_type_embeddings.weight": matrix(rng, 1, n_embd, 4),
    }
    norms, linears = ["emb_ln"], {}
    for i in range(n_layer):
        p = f"encoder.layers.{i}."
        linears |= {f"{p}attn.Wqkv": (3 * n_embd, n_embd), f"{p}attn.out_proj": (n_embd, n_embd)}
        norms += [f"{p}norm1", f"{p}norm2"]
        if i % EVERY != 1:
            linears |= {f"{p}mlp.fc1": (n_ff, n_embd), f"{p}mlp.fc2": (n_embd, n_ff)}
            continue
        made[f"{p}mlp.router.layer.weight"] = matrix(rng, EXPERTS, n_embd)
        made[f"{p}mlp.experts.bias"] = 0.3 * rng.normal(size=n_embd)
        made[f"{p}mlp.experts.mlp.w1"] = matrix(rng, EXPERTS * n_ff, n_embd)
        made[f"{p}mlp.experts.mlp.w2"] = matrix(rng, EXPERTS * n_ff, n_embd, 1.2)
    for name, shape in linears.items():
        made |= {f"{name}.weight": matrix(rng, *shape), f"{name}.bias": rng.normal(size=shape[0])}
    for name in norms:
        made |= {f"{name}.weight": 1 + 0.3 * rng.normal(size=n_embd)}
        made |= {f"{name}.bias": 0.3 * rng.normal(size=n_embd)}
    return {n: np.float32(x) for n, x in made.items()}


def without_bias(rng, n_vocab):
    """Return tensors without the bias of the experts' sum, of which llama.cpp does not know."""
    return {n: x for n, x in make(rng, n_vocab).items() if not n.endswith("experts.bias")}


def hidden(tensors, ids, n_head=4, eps=1e-5):
    """Return the states of all tokens, (n_tokens, n_embd)."""
    w, n = wide(tensors), len(ids)
    x = (
        w["embeddings.word_embeddings.weight"][ids]
        + w["embeddings.token_type_embeddings.weight"][0]
    )
    x = layer_norm(w, x, "emb_ln", eps)
    for i in range(sum(name.endswith("attn.Wqkv.weight") for name in w)):
        p = f"encoder.layers.{i}."
        made = np.split(linear(w, x, f"{p}attn.Wqkv"), 3, axis=-1)
        q, k, v = (part.reshape(n, n_head, -1) for part in made)
        y = linear(w, attention(rotated(q, 1000.0), rotated(k, 1000.0), v), f"{p}attn.out_proj")
        x = layer_norm(w, x + y, f"{p}norm1", eps)
        x = layer_norm(w, x + feed(w, x, p), f"{p}norm2", eps)
    return x


def feed(w, x, p):
    """Return what a layer's network, or its experts, make of ``x``."""
    if f"{p}mlp.fc1.weight" in w:
        return linear(w, gelu(linear(w, x, f"{p}mlp.fc1")), f"{p}mlp.fc2")
    first, second = (w[f"{p}mlp.experts.mlp.w{n}"] for n in (1, 2))
    first, second = (m.reshape(EXPERTS, -1, x.shape[1]) for m in (first, second))

    def expert(e, t):
        return gelu(first[e] @ x[t]) @ second[e]

    probabilities = softmax(linear(w, x, f"{p}mlp.router.layer"))
    return mixture(probabilities, USED, lambda p: p, expert) + w.get(f"{p}mlp.experts.bias", 0.0)
