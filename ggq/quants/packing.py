"""Bits and bytes of blocks: structured views of rows, codes on bit planes, packed 6-bit scales.

It knows how bits lie, not what they mean.
"""

import numpy as np


def view_blocks(blocks: np.ndarray, layout: np.dtype) -> np.ndarray:
    """Return rows of bytes as a structured array (rows, blocks) without copying contiguous rows.

    Blocks of another array library come with their fields apart and are returned as they are.
    """
    if not isinstance(blocks, np.ndarray):
        return blocks
    return np.ascontiguousarray(blocks, np.uint8).view(layout)


def look_up(table: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return ``table[codes]``; codes of another array library know how to do it there."""
    found: np.ndarray = table[codes] if isinstance(codes, np.ndarray) else codes.look_up(table)
    return found


def join_blocks(layout: np.dtype, **fields: np.ndarray) -> np.ndarray:
    """Return rows of bytes from fields of shape (rows, blocks, ...)."""
    blocks = np.empty(next(iter(fields.values())).shape[:2], layout)
    for name, values in fields.items():
        blocks[name] = values
    return blocks.view(np.uint8).reshape(len(blocks), blocks.shape[1] * layout.itemsize)


def split_planes(packed: np.ndarray, width: int, bits: int) -> np.ndarray:
    """Return the codes in bytes (rows, blocks, m): each run of ``width`` bytes holds 8/bits planes.

    The lowest ``bits`` of a run are its first ``width`` codes, the next bits the following ones.
    """
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    runs = packed.reshape(*packed.shape[:-1], -1, 1, width)
    codes = (runs >> shifts) & np.uint8((1 << bits) - 1)
    found: np.ndarray = codes.reshape(*packed.shape[:-1], -1)
    return found


def join_planes(codes: np.ndarray, width: int, bits: int) -> np.ndarray:
    """Return bytes (rows, blocks, m) from codes below ``1 << bits``; inverse of `split_planes`."""
    n_runs = codes.shape[-1] * bits // (8 * width)
    runs = codes.reshape(*codes.shape[:-1], n_runs, 8 // bits, width)
    packed = runs[..., 0, :]
    for plane in range(1, 8 // bits):
        packed = packed | (runs[..., plane, :] << np.uint8(bits * plane))
    return packed.reshape(*codes.shape[:-1], n_runs * width)


def split_scales_and_mins(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return 8 scales and 8 minimums of 6 bits from the 12 bytes of Q4_K and Q5_K.

    The first eight bytes hold the four first scales, then minimums, each under two high bits of a
    later one; the last four hold the low nibbles of the later pairs.
    """
    scale, minimum, both = (packed[..., i : i + 4] for i in (0, 4, 8))
    low, high = both & np.uint8(15), both >> np.uint8(4)
    later_scale = low | ((scale >> np.uint8(2)) & np.uint8(48))
    later_minimum = high | ((minimum >> np.uint8(2)) & np.uint8(48))
    first = np.uint8(63)
    return (
        np.concatenate([scale & first, later_scale], -1),
        np.concatenate([minimum & first, later_minimum], -1),
    )


def join_scales_and_mins(scales: np.ndarray, mins: np.ndarray) -> np.ndarray:
    """Return the 12 bytes of 8 scales and 8 minimums; inverse of `split_scales_and_mins`."""
    first, later = (slice(0, 4), slice(4, 8))
    nibble, two, four = np.uint8(15), np.uint8(2), np.uint8(4)
    high_bits = np.uint8(48)
    return np.concatenate(
        [
            scales[..., first] | ((scales[..., later] & high_bits) << two),
            mins[..., first] | ((mins[..., later] & high_bits) << two),
            (scales[..., later] & nibble) | ((mins[..., later] & nibble) << four),
        ],
        -1,
    )


def nearest_int(values: np.ndarray) -> np.ndarray:
    """Return ggml's nearest_int of float32 values as int32: half to even, wrapping beyond 2**22."""
    bits = (values + np.float32(12582912)).view(np.int32)
    found: np.ndarray = (bits & np.int32(0x7FFFFF)) - np.int32(0x400000)
    return found


def split_six_bit(packed: np.ndarray) -> np.ndarray:
    """Return 16 scales of 6 bits from the 12 bytes of Q3_K: nibbles of 8 bytes, high bits of 4."""
    low = split_planes(packed[..., :8], 8, 4)
    high = split_planes(packed[..., 8:], 4, 2)
    found: np.ndarray = low | (high << np.uint8(4))
    return found


def join_six_bit(scales: np.ndarray) -> np.ndarray:
    """Return the 12 bytes of 16 scales of 6 bits; inverse of `split_six_bit`."""
    low = join_planes(scales & np.uint8(15), 8, 4)
    high = join_planes(scales >> np.uint8(4), 4, 2)
    return np.concatenate([low, high], -1)


def split_nibbles_and_bits(nibbles: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Return 32 codes of 5 bits from 16 bytes of low nibbles and 4 bytes of fifth bits in order."""
    found: np.ndarray = split_planes(nibbles, 16, 4) | (split_planes(bits, 1, 1) << np.uint8(4))
    return found


def join_nibbles_and_bits(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return 16 bytes of low nibbles and 4 of fifth bits; inverse of `split_nibbles_and_bits`."""
    return join_planes(codes & np.uint8(15), 16, 4), join_planes(codes >> np.uint8(4), 1, 1)
