"""attention in numpy, one head at a time."""

import numpy as np

from ggq.runtime.ops.attention import slopes, visible


def run(backend, q, k, v, layer, spec):
    """Append k and v to the cache of ``layer`` and return the mix of cached values."""
    keys, values = backend.cache[layer]
    if k is not None:
        keys.extend(k)
        values.extend(v)
    n_tokens = len(q)
    queries = q.reshape(n_tokens, spec.n_head, spec.head_dim)
    keys = np.stack(keys).reshape(-1, spec.n_head_kv, spec.head_dim)
    values = np.stack(values).reshape(-1, spec.n_head_kv, spec.head_dim_v)
    seen = visible(n_tokens, len(keys) - n_tokens, spec)
    for begin, end in backend.spans if spec.mutual else ():
        mine = slice(max(0, begin - len(keys) + n_tokens), max(0, end - len(keys) + n_tokens))
        seen[mine, begin:end] = True
    sinks = None if spec.sinks is None else backend.array(spec.sinks)
    past = len(keys) - n_tokens
    away = abs(past + np.arange(n_tokens)[:, None] - np.arange(len(keys)))
    out = np.empty((n_tokens, spec.n_head, spec.head_dim_v))
    for head in range(spec.n_head):
        shared = head * spec.n_head_kv // spec.n_head
        scores = spec.scale * queries[:, head] @ keys[:, shared].T
        if spec.softcap:
            scores = spec.softcap * np.tanh(scores / spec.softcap)
        if spec.alibi:
            scores = scores - slopes(spec.n_head, spec.alibi)[head] * away
        scores = np.where(seen, scores, -np.inf)
        top = scores.max(axis=-1, keepdims=True)
        if sinks is not None:
            top = np.maximum(top, sinks[head])
        weights = np.exp(scores - top)
        total = weights.sum(axis=-1, keepdims=True)
        if sinks is not None:
            total += np.exp(sinks[head] - top)
        out[:, head] = (weights / total) @ values[:, shared]
    return out.reshape(n_tokens, -1)
