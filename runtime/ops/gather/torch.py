"""gather in torch."""


def run(backend, x):
    """Return all rows or the last one of each sequence."""
    return x.unflatten(0, backend.ids.shape)[:, -1] if backend.last_only else x
