"""gate(gate, up, kind="silu") -> act(gate) * up, (n_tokens, width) each (arXiv 2002.05202).

Kinds: "silu" x * sigmoid(x); "gelu_tanh" GELU by its tanh approximation (arXiv 1606.08415).
"""
