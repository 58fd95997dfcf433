"""linear in torch; its listeners see the input first."""

from torch.nn import functional


def run(backend, x, name, bias=None):
    """Return x @ W.T + b."""
    for listener in backend.linear_listeners:
        listener(name, x)
    return functional.linear(
        x, backend.tensor(name), None if bias is None else backend.tensor(bias)
    )
