"""SmallThinker in plain float64, and tiny random weights of it: transformers lacks the class.

Written from the report (arXiv 2507.20984) and the names that published checkpoints have.
"""

import numpy as np
from plain_layers import linear, llama_attention, matrix, mixture, rms_norm, softmax, wide


def make(rng, n_vocab, config):
    """Return the tensors of a checkpoint, float32 by name."""
    n_embd, n_ff, width = config["hidden_size"], config["moe_ffn_hidden_size"], config["head_dim"]
    heads = config["num_attention_heads"], config["num_key_value_heads"]
    made = {
        "model.embed_tokens.weight": matrix(rng, n_vocab, n_embd, 3.2),
        "lm_head.weight": matrix(rng, n_vocab, n_embd),
    }
    norms = ["model.norm"]
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}."
        for name, n in (("q", heads[0]), ("k", heads[1]), ("v", heads[1])):
            made[f"{p}self_attn.{name}_proj.weight"] = matrix(rng, n * width, n_embd)
        made[f"{p}self_attn.o_proj.weight"] = matrix(rng, n_embd, heads[0] * width)
        moe = f"{p}block_sparse_moe."
        made[f"{moe}primary_router.weight"] = matrix(rng, config["moe_num_primary_experts"], n_embd)
        for e in range(config["moe_num_primary_experts"]):
            for name, shape in (("up", (n_ff, n_embd)), ("gate", (n_ff, n_embd))):
                made[f"{moe}experts.{e}.{name}.weight"] = matrix(rng, *shape)
            made[f"{moe}experts.{e}.down.weight"] = matrix(rng, n_embd, n_ff)
        norms += [f"{p}input_layernorm", f"{p}post_attention_layernorm"]
    made |= {f"{name}.weight": np.float32(1 + 0.3 * rng.normal(size=n_embd)) for name in norms}
    return made


def logits(tensors, ids, config):
    """Return the logits of all tokens, (n_tokens, n_vocab)."""
    w, eps = wide(tensors), config["rms_norm_eps"]
    x = w["model.embed_tokens.weight"][ids]
    for i in range(config["num_hidden_layers"]):
        p, entered = f"model.layers.{i}.", x
        normed = rms_norm(w, x, f"{p}input_layernorm", eps)
        base = config["rope_theta"] if config["rope_layout"][i] else None
        window = config["sliding_window_size"] if config["sliding_window_layout"][i] else None
        x = x + llama_attention(w, normed, p, config["head_dim"], base, window)
        normed = rms_norm(w, x, f"{p}post_attention_layernorm", eps)
        x = x + experts(w, normed, entered, f"{p}block_sparse_moe.", config)
    return linear(w, rms_norm(w, x, "model.norm", eps), "lm_head")


def experts(w, x, entered, p, config):
    """Return what the experts make of ``x``, chosen by what ``entered`` the layer."""

    def expert(e, t):
        gate, up = (w[f"{p}experts.{e}.{name}.weight"] @ x[t] for name in ("gate", "up"))
        return w[f"{p}experts.{e}.down.weight"] @ (np.maximum(gate, 0) * up)

    soft = config["moe_primary_router_apply_softmax"]

    def weigh(chosen):
        return softmax(chosen) if soft else shared(1 / (1 + np.exp(-chosen)))

    scores = linear(w, entered, f"{p}primary_router")
    return mixture(scores, config["moe_num_active_primary_experts"], weigh, expert)


def shared(x):
    return x / x.sum(-1, keepdims=True)
