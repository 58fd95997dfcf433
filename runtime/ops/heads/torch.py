"""heads in torch: one batched product."""

from ggq.runtime.ops.experts import expert_name


def run(backend, x, name):
    """Return the heads' products side by side."""
    weights = backend.tensor(name)
    parts = x.unflatten(1, (weights.shape[0], -1)).transpose(0, 1)
    for listener in backend.linear_listeners:
        for h, part in enumerate(parts):
            listener(expert_name(name, h), part)
    return (parts @ weights.transpose(1, 2)).transpose(0, 1).flatten(1)
