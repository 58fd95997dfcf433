"""scan: one group of heads and several, states of other sizes than heads."""

from ggq.models.layers.mamba2 import Mamba2
from opcases import TOKENS, Case


def _scan(label, n_head, head_dim, n_group, d_state):
    spec = Mamba2(n_head, head_dim, n_group, d_state, a="decay", d="direct", bias="shift")
    tables = {
        "x": (TOKENS, n_head * head_dim + 2 * n_group * d_state),
        "dt": (TOKENS, n_head),
        "decay": (n_head, 1),
        "direct": (n_head, 1),
        "shift": (n_head,),
    }
    return Case("scan", label, lambda o: o.scan(o.embed("x"), o.embed("dt"), 0, spec), tables)


CASES = [
    _scan("one group", 6, 16, 1, 16),
    _scan("groups", 4, 32, 2, 12),
]
