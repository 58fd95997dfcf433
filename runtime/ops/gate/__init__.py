"""gate(gate, up, kind="silu") -> act(gate) * up, (n_tokens, width) each (arXiv 2002.05202).

A gate of one column goes with every column of ``up``. Kinds: "none" x; "sigmoid"; "silu"
x * sigmoid(x); "gelu" exact GELU; "gelu_tanh" its tanh approximation (arXiv 1606.08415);
"swiglu_oai" of gpt-oss: g * sigmoid(1.702 g) * (u + 1) with g at most 7 and u in -7 .. 7.
"""

__all__ = ["OAI_ALPHA", "OAI_LIMIT"]

OAI_ALPHA, OAI_LIMIT = 1.702, 7.0
