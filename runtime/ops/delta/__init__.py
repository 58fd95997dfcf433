"""delta(x, alpha, beta, layer, spec) -> o: the gated delta rule (arXiv 2412.06464), head by head.

x (n_tokens, columns) holds the queries and keys of n_key_heads heads of head_dim columns each, then
the values of n_head heads of head_dim_v; alpha and beta (n_tokens, n_head). Value head h goes with
key head h % n_key_heads or, where heads are ``grouped``, with key head h // (n_head / n_key_heads).
With q and k of length 1 (and q / sqrt(head_dim)), decay
g = exp(A softplus(alpha + dt)) and rate b = sigmoid(beta), the state S (head_dim, head_dim_v) of
``layer`` becomes S' = g S + k (b (v - (g S)^T k))^T and o = S'^T q. ``spec``: DeltaNet of
ggq.models.layers.delta_net, which names the tensors A and dt.
"""

__all__ = ["LENGTH_EPS"]

LENGTH_EPS = 1e-6  # added to squared lengths
