"""see: in steps without a picture x is what it was; those with some: test_see.py."""

from opcases import TOKENS, Case

CASES = [Case("see", "text", lambda o: o.see(o.embed("x"), 1), {"x": (TOKENS, 96)})]
