"""gain, match and sparsify: what Gemma 3n's alternating updates and sparse gates need."""

from opcases import TOKENS, Case

PAIR = {"a": (TOKENS, 96), "b": (TOKENS, 96)}
ODD = {"x": (TOKENS, 40)}
CASES = [
    Case("gain", "row", lambda o: o.gain(o.embed("a"), "w"), PAIR | {"w": (96,)}),
    Case("match", "rows", lambda o: o.match(o.embed("a"), o.scale(o.embed("b"), 7.0)), PAIR),
    Case("match", "tiny", lambda o: o.match(o.scale(o.embed("a"), 1e-4), o.embed("b")), PAIR),
    Case("sparsify", "few stay", lambda o: o.sparsify(o.embed("a"), 1.6448536), PAIR),
    Case("sparsify", "odd width", lambda o: o.sparsify(o.embed("x"), -0.5), ODD),
]
