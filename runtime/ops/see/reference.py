"""see in numpy."""


def run(backend, x, part):
    """Return x with the rows that the step's pictures have for ``part``."""
    if backend.pictures is None:
        return x
    at, rows = backend.pictures
    x = x.copy()
    x[at] = rows[part] + (x[at] if part else 0)
    return x
