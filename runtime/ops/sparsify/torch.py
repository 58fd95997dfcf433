"""sparsify in torch."""


def run(backend, x, multiplier):
    """Return what of x lies above the cut-off."""
    deviation = x.std(dim=-1, keepdim=True, correction=0)
    return (x - x.mean(dim=-1, keepdim=True) - multiplier * deviation).relu()
