"""softcap(x, cap) -> cap * tanh(x / cap), (n_tokens, width): a soft limit (arXiv 2408.00118)."""
