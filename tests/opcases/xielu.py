"""xielu: both branches, near zero and far from it."""

from opcases import TOKENS, Case


def _case(label, table, *settings):
    return Case("xielu", label, lambda o: o.xielu(o.embed(table), *settings), {table: (TOKENS, 96)})


CASES = [
    _case("usual", "x", 0.8, 0.3, 0.5, -1e-6),
    _case("far", "far", -2.0, 1.5, 0.25, -1e-6),
]
