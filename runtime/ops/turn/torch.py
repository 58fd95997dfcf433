"""turn in torch: tables in float64 numpy, the rotation in float32."""

import numpy as np
import torch


def run(backend, x, n_head, angles, kind):
    """Return x with the pairs of each head turned."""
    cos, sin = (
        torch.from_numpy(f(angles).astype(np.float32)).to(x.device)[:, None]
        for f in (np.cos, np.sin)
    )
    heads = x.unflatten(1, (n_head, -1))
    if kind == "halves":
        heads = heads.unflatten(2, (2, -1))
        cos, sin = (y.unflatten(2, (2, -1)) for y in (cos, sin))
    if kind == "norm":
        a, b = heads[..., 0::2], heads[..., 1::2]
        turned = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1)
    else:
        a, b = heads.chunk(2, dim=-1)
        turned = torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)
    return turned.reshape(x.shape)
