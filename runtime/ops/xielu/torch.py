"""xielu in torch."""

import torch

from ggq.runtime.ops.xielu import slopes


def run(backend, x, alpha_p, alpha_n, beta, eps):
    """Return xIELU of x."""
    p, n = slopes(alpha_p, alpha_n, beta)
    return beta * x + torch.where(x > 0, p * x * x, n * (torch.expm1(x.clamp(max=eps)) - x))
