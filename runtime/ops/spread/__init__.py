"""spread(x, routed) -> a row for each pair of a token and an expert of it: its weight times x.

x (n_tokens, width) and routed from `route` give (n_tokens * n_used, width), in the order in which
`experts` takes and returns pairs: for experts whose input is weighed, not their output (Llama 4).
"""
