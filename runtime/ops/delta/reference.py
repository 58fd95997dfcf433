"""delta in numpy, token by token."""

import numpy as np

from ggq.runtime.ops.delta import LENGTH_EPS


def run(backend, x, alpha, beta, layer, spec):
    """Return the outputs and keep the state."""
    n, keys, d, dv = spec.n_head, spec.n_key_heads, spec.head_dim, spec.head_dim_v
    q, k, v = np.split(x, [keys * d, 2 * keys * d], axis=1)
    head = np.arange(n) // (n // keys if spec.grouped else 1) % keys
    q, k = (_unit(a.reshape(len(x), keys, d))[:, head] for a in (q, k))
    v = v.reshape(len(x), n, dv)
    decay = np.exp(backend.array(spec.a) * np.logaddexp(0, alpha + backend.array(spec.dt)))
    rate = 0.5 * (1 + np.tanh(0.5 * beta))
    held, _ = backend.cache["delta", layer]
    state = held.pop() if held else np.zeros((n, d, dv))
    out = np.empty_like(v)
    for t in range(len(x)):
        state = state * decay[t][:, None, None]
        error = v[t] - np.einsum("hdv,hd->hv", state, k[t])
        state = state + np.einsum("hd,hv->hdv", k[t], rate[t][:, None] * error)
        out[t] = np.einsum("hdv,hd->hv", state, q[t]) * d**-0.5
    held.append(state)
    return out.reshape(len(x), -1)


def _unit(x):
    return x / np.sqrt((x * x).sum(axis=-1, keepdims=True) + LENGTH_EPS)
