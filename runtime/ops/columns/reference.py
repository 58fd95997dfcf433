"""columns in numpy."""


def run(backend, x, first, width, group=None):
    """Return those columns, group after group."""
    groups = x.reshape(len(x), -1, group or x.shape[1])
    return groups[..., first : first + width].reshape(len(x), -1)
