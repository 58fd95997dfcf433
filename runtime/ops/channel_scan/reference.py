"""channel_scan in numpy, token by token."""

import numpy as np


def run(backend, x, dt, b, c, layer, spec):
    """Return the outputs and keep the state."""
    step = np.logaddexp(0, dt)
    a, direct = backend.array(spec.a).T, backend.array(spec.d).ravel()
    held, _ = backend.cache["channel_scan", layer]
    state = held.pop() if held else np.zeros((spec.d_state, spec.n_channels))
    out = np.empty_like(x)
    for t in range(len(x)):
        state = state * np.exp(a * step[t]) + np.outer(b[t], step[t] * x[t])
        out[t] = c[t] @ state + direct * x[t]
    held.append(state)
    return out
