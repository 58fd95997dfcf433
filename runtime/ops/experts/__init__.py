"""experts(x, routed, name, bias=None) -> x @ W[e].T + b[e] for each token and its experts e.

W (n_expert, n_out, n_in), b (n_expert, n_out), routed from `route`. x holds a row per token, or a
row per pair of token and expert as `experts` returns them: (n_tokens * n_used, n_out), the order of
the pairs being the back end's own. Only the chosen experts' rows are read.
"""

__all__ = ["expert_name"]


def expert_name(name, expert):
    """Return what listeners are told for one expert of the weight ``name``."""
    return f"{name}[{expert}]"
