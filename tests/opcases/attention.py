"""attention with ALiBi: head counts that are powers of 2 and not, windows, caps."""

from ggq.models.layers.attention import Attention
from opcases import TOKENS, Case

KV_HEADS, HEAD = 2, 32


def _alibi(label, n_head=6, alibi=8.0, **settings):
    spec = Attention(n_head, KV_HEADS, HEAD, HEAD, 0.25, alibi=alibi, **settings)
    tables = {
        "q": (TOKENS, n_head * HEAD),
        "k": (TOKENS, KV_HEADS * HEAD),
        "v": (TOKENS, KV_HEADS * HEAD),
    }

    def forward(o):
        return o.attention(o.embed("q"), o.embed("k"), o.embed("v"), 0, spec)

    return Case("attention", label, forward, tables)


CASES = [
    _alibi("alibi"),
    _alibi("alibi of a power of 2", 4, alibi=16.0),
    _alibi("alibi with a window", window=5),
    _alibi("alibi with a cap", softcap=2.0),
]
