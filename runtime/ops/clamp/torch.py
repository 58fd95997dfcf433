"""clamp in torch."""


def run(backend, x, limit, low=None):
    """Return x between low and limit."""
    return x.clamp(-limit if low is None else low, limit)
