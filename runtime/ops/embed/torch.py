"""embed in torch."""

import torch
from torch.nn.functional import embedding


def run(backend, name, of="ids"):
    """Return the rows of the table ``name`` at the ids or positions, sequence after sequence."""
    ids = backend.ids
    if of == "positions":
        ids = torch.from_numpy(backend.positions).to(ids.device).expand(ids.shape)
    return embedding(ids.flatten(), backend.tensor(name))
