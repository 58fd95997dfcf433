"""clamp: some columns beyond the limit."""

from opcases import TOKENS, Case

CASES = [Case("clamp", "rows", lambda o: o.clamp(o.embed("x"), 0.5), {"x": (TOKENS, 96)})]
