"""activate(x, kind) -> act(x), (n_tokens, width): feed-forwards without a gate.

Kinds: "gelu" x * Phi(x) with the exact normal distribution, "gelu_tanh" its tanh approximation
and "gelu_quick" x * sigmoid(1.702 x) (arXiv 1606.08415), "silu", "relu", "relu2" its square (arXiv
2109.08668).
"""
