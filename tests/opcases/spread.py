"""spread: experts whose inputs are weighed, one for each token and several."""

from ggq.models.layers.experts import Routing
from opcases import TOKENS, Case


def _spread(label, n_used):
    def forward(o):
        routed = o.route(o.embed("l"), Routing(8, n_used, gating="sigmoid"))
        rows = o.experts(o.spread(o.embed("x"), routed), routed, "up")
        return o.combine(o.experts(rows, routed, "down"), routed, weighted=False)

    tables = {"l": (TOKENS, 8), "x": (TOKENS, 64), "up": (8, 48, 64), "down": (8, 64, 48)}
    return Case("spread", label, forward, tables)


CASES = [_spread("one", 1), _spread("three", 3)]
