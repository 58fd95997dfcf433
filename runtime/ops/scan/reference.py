"""scan in numpy, token by token."""

import numpy as np


def run(backend, x, dt, layer, spec):
    """Return the outputs and keep the state."""
    n, d, groups, size = spec.n_head, spec.head_dim, spec.n_group, spec.d_state
    x, b, c = np.split(x, [n * d, n * d + groups * size], axis=1)
    x = x.reshape(len(x), n, d)
    b, c = (np.repeat(a.reshape(len(x), groups, size), n // groups, axis=1) for a in (b, c))
    step = np.logaddexp(0, dt + backend.array(spec.bias).ravel())
    decay = np.exp(step * backend.array(spec.a).ravel())
    direct = backend.array(spec.d).ravel()[:, None]
    held, _ = backend.cache["scan", layer]
    state = held.pop() if held else np.zeros((n, size, d))
    out = np.empty_like(x)
    for t in range(len(x)):
        new = np.einsum("hs,hd->hsd", b[t], step[t][:, None] * x[t])
        state = state * decay[t][:, None, None] + new
        out[t] = np.einsum("hsd,hs->hd", state, c[t]) + direct * x[t]
    held.append(state)
    return out.reshape(len(x), -1)
