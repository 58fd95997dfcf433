"""see in torch: calibration and devices read text alone."""


def run(backend, x, part):
    """Return x, or raise where a step has pictures."""
    assert backend.pictures is None, "pictures are looked at on a CPU"
    return x
