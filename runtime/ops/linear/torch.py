"""linear in torch; its listeners see the input first."""

from torch.nn import functional


def run(backend, x, name, bias=None, rows=None):
    """Return x @ W.T + b; a fused weight's listeners hear of its first part only."""
    if rows is None or rows[0] == 0:
        for listener in backend.linear_listeners:
            listener(name, x)
    if name in backend.unread:
        return x[:, :1]
    part = slice(*rows or (None,))
    shift = None if bias is None else backend.tensor(bias)[part]
    return functional.linear(x, backend.tensor(name)[part], shift)
