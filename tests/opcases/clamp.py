"""clamp: some columns beyond the limits."""

from opcases import TOKENS, Case

X = {"x": (TOKENS, 96)}
CASES = [
    Case("clamp", "rows", lambda o: o.clamp(o.embed("x"), 0.5), X),
    Case("clamp", "one-sided", lambda o: o.clamp(o.embed("x"), 0.5, -0.1), X),
]
