"""combine in torch."""


def run(backend, y, routed):
    """Return the sum over each token's experts."""
    weights = routed[1]
    return (y.unflatten(0, weights.shape) * weights[..., None]).sum(dim=1)
