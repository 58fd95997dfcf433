"""linear in numpy; its listeners see the input first."""


def run(backend, x, name, bias=None, rows=None):
    """Return x @ W.T + b."""
    part = slice(*rows or (None,))
    for listener in backend.linear_listeners if not rows or rows[0] == 0 else ():
        listener(name, x)
    if name in backend.unread:
        return x[:, :1]
    y = x @ backend.array(name)[part].T
    return y if bias is None else y + backend.array(bias)[part]
