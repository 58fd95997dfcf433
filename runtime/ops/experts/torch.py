"""experts in torch: pairs token-major, one product per chosen expert, whose rows listeners see."""

from torch.nn import functional

from ggq.runtime.ops.experts import expert_name


def run(backend, x, routed, name, bias=None, rows=None):
    """Return a row per pair."""
    ids = routed[0].flatten()
    n_used = routed[0].shape[1]
    per_token = len(ids) // len(x)
    part = slice(*rows or (None,))
    weights = backend.tensor(name)[:, part]
    shifts = None if bias is None else backend.tensor(bias)[:, part]
    out = x.new_zeros(len(ids), weights.shape[1])
    for e in ids.unique().tolist():
        pairs = (ids == e).nonzero().flatten()
        inputs = x[pairs // per_token]
        for listener in backend.linear_listeners:
            listener(expert_name(name, e), inputs)
        y = functional.linear(inputs, weights[e], None if shifts is None else shifts[e])
        out = out.index_copy(0, pairs, y)
    assert per_token in (1, n_used)
    return out
