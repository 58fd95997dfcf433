"""clamp in torch."""


def run(backend, x, limit):
    """Return x between -limit and limit."""
    return x.clamp(-limit, limit)
