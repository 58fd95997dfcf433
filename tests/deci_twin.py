"""Nemotron NAS in plain float64, and tiny random weights of it: transformers lacks the class.

Written from its paper (arXiv 2411.19146) and the settings and names of published checkpoints.
"""

import numpy as np
from plain_layers import linear, llama_attention, matrix, rms_norm, wide


def _parts(config):
    """Yield (heads of keys or None, whether one weight replaces them, width) of each layer."""
    for block in config["block_configs"]:
        group, share = block["attention"]["n_heads_in_group"], block["ffn"]["ffn_mult"]
        heads = group and config["num_attention_heads"] // group
        wide = share and -(-int(2 * share * config["hidden_size"] / 3) // 256) * 256
        yield heads, block["attention"]["replace_with_linear"], wide


def make(rng, n_vocab, config):
    """Return the tensors of a checkpoint, float32 by name."""
    n_embd = config["hidden_size"]
    width = n_embd // config["num_attention_heads"]
    made = {
        "model.embed_tokens.weight": matrix(rng, n_vocab, n_embd, 3.2),
        "lm_head.weight": matrix(rng, n_vocab, n_embd),
    }
    norms = ["model.norm"]
    for i, (heads, mapped, n_ff) in enumerate(_parts(config)):
        p = f"model.layers.{i}."
        if heads:
            for name, n in (("q", n_embd), ("k", heads * width), ("v", heads * width)):
                made[f"{p}self_attn.{name}_proj.weight"] = matrix(rng, n, n_embd)
            made[f"{p}self_attn.o_proj.weight"] = matrix(rng, n_embd, n_embd)
        if mapped:
            made[f"{p}self_attn.linear_attn.weight"] = matrix(rng, n_embd, n_embd)
        norms += [f"{p}input_layernorm"] * bool(heads or mapped)
        if n_ff:
            for name in ("gate", "up"):
                made[f"{p}mlp.{name}_proj.weight"] = matrix(rng, n_ff, n_embd)
            made[f"{p}mlp.down_proj.weight"] = matrix(rng, n_embd, n_ff)
            norms.append(f"{p}post_attention_layernorm")
    made |= {f"{name}.weight": np.float32(1 + 0.3 * rng.normal(size=n_embd)) for name in norms}
    return made


def logits(tensors, ids, config):
    """Return the logits of all tokens, (n_tokens, n_vocab)."""
    w, eps = wide(tensors), config["rms_norm_eps"]
    x = w["model.embed_tokens.weight"][ids]
    width = config["hidden_size"] // config["num_attention_heads"]
    for i, (heads, mapped, n_ff) in enumerate(_parts(config)):
        p = f"model.layers.{i}."
        if heads or mapped:
            normed = rms_norm(w, x, f"{p}input_layernorm", eps)
            if mapped:
                x = x + linear(w, normed, f"{p}self_attn.linear_attn")
            else:
                x = x + llama_attention(w, normed, p, width, config["rope_theta"])
        if n_ff:
            normed = rms_norm(w, x, f"{p}post_attention_layernorm", eps)
            gate, up = (linear(w, normed, f"{p}mlp.{name}_proj") for name in ("gate", "up"))
            x = x + linear(w, gate / (1 + np.exp(-gate)) * up, f"{p}mlp.down_proj")
    return linear(w, rms_norm(w, x, "model.norm", eps), "lm_head")
