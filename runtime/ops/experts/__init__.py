"""experts(x, routed, name, bias=None, rows=None) -> x @ W[e].T + b[e] for tokens and experts e.

W (n_expert, n_out, n_in), b (n_expert, n_out), routed from `route`. x holds a row per token, or a
row per pair of token and expert as `experts` returns them: (n_tokens * n_used, n_out), the order of
the pairs being the back end's own. Only the chosen experts' rows are read, and of
these the part ``rows`` (first, end) where given.
"""

__all__ = ["expert_name", "expert_of"]


def expert_name(name, expert):
    """Return what listeners are told for one expert of the weight ``name``."""
    return f"{name}[{expert}]"


def expert_of(name):
    """Return (weight, expert) of what a listener was told; expert None for a plain linear."""
    weight, _, expert = name.partition("[")
    return weight, int(expert[:-1]) if expert else None
