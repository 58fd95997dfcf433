"""TQ1_0: ternary weights, five to a byte.

A byte is the fraction 0.abcde in base 3, scaled to 256 and rounded up: multiplying by 3 brings the
next digit above the point.
"""

import numpy as np

from ggq.quants.ternary import TernaryType

_POWERS = np.array([1, 3, 9, 27, 81], np.uint8)[:, None]


def _digits(packed: np.ndarray, width: int, count: int) -> np.ndarray:
    """Return the first ``count`` digits of bytes in runs of ``width``: digit planes one by one."""
    runs = packed.reshape(*packed.shape[:-1], -1, 1, width)
    fractions = runs * _POWERS[:count]  # wraps: what is above the point falls away
    codes = (fractions.astype(np.uint16) * np.uint16(3)) >> np.uint16(8)
    found: np.ndarray = codes.astype(np.uint8).reshape(*packed.shape[:-1], -1)
    return found


def _bytes(codes: np.ndarray, width: int, count: int) -> np.ndarray:
    runs = codes.reshape(*codes.shape[:-1], -1, count, width).astype(np.uint16)
    number = (runs * _POWERS[5 - count :][::-1].astype(np.uint16)).sum(-2, dtype=np.uint16)
    packed = (number * np.uint32(256) + np.uint32(242)) // np.uint32(243)
    found: np.ndarray = packed.astype(np.uint8).reshape(*codes.shape[:-1], -1)
    return found


class TQ1_0(TernaryType):
    """32 bytes hold 160 weights, 16 the next 80, 4 the last 16."""

    name, ggml_id, block_size, block_bytes = "TQ1_0", 34, 256, 54
    fallback = "Q4_0"
    layout = np.dtype([("long", "u1", 32), ("short", "u1", 16), ("last", "u1", 4), ("d", "<f2")])

    def split(self, fields: np.ndarray) -> np.ndarray:
        parts = [_digits(fields["long"], 32, 5), _digits(fields["short"], 16, 5)]
        return np.concatenate([*parts, _digits(fields["last"], 4, 4)], -1)

    def join(self, codes: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "long": _bytes(codes[..., :160], 32, 5),
            "short": _bytes(codes[..., 160:240], 16, 5),
            "last": _bytes(codes[..., 240:], 4, 4),
        }


TYPE = TQ1_0()
