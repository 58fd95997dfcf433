"""gather in numpy."""


def run(backend, x):
    """Return all rows or the last one."""
    return x[-1:] if backend.last_only else x
