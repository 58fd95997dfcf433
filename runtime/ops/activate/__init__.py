"""activate(x, kind) -> act(x), (n_tokens, width): feed-forwards without a gate.

Kinds: "gelu" x * Phi(x) with the exact normal distribution, "gelu_tanh" its tanh approximation
(arXiv 1606.08415), "relu", "relu2" its square (arXiv 2109.08668).
"""
