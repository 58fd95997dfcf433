"""gain in torch."""


def run(backend, x, name):
    """Return x times the tensor's first row."""
    return x * backend.tensor(name).reshape(-1, x.shape[1])[0]
