"""channel_scan: as many states as Mamba has for a channel, and fewer."""

from ggq.models.layers.mamba import Mamba
from opcases import TOKENS, Case


def _scan(label, n_channels, d_state):
    spec = Mamba(n_channels, d_state, a="decay", d="direct")
    wide, narrow = (TOKENS, n_channels), (TOKENS, d_state)
    tables = {"x": wide, "dt": wide, "b": narrow, "c": narrow}
    tables |= {"decay": (n_channels, d_state), "direct": (n_channels,)}

    def forward(o):
        return o.channel_scan(*(o.embed(name) for name in ("x", "dt", "b", "c")), 0, spec)

    return Case("channel_scan", label, forward, tables)


CASES = [
    _scan("sixteen states", 96, 16),
    _scan("five states", 48, 5),
]
