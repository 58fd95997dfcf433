"""From exact integer sums to a float total: the arithmetic that both matmul kernels share.

In float32, columns ascending, fused where a product is added to something:
    weighted = scale x sum - minimum x (sum of the token's codes), per lane of scales
    total = total + weighted x (the token's scale), per 32 columns
Where scales are per 16 columns, the weighted sums of both halves are added first.
Sums of integers are exact, so a kernel adds codes in the order that suits it; what follows stands
here, so that an output is bit for bit the same from either kernel and beside any other tokens.
Where the minimum is ``centre`` x scale, it is taken from the integer sum instead.
"""

from ggq.jit import njit
from ggq.simd import (
    bitcast,
    convert,
    f32x8,
    f32x16,
    float32,
    fma,
    i32x8,
    i32x16,
    int32,
    int64,
    isa,
    load,
    overload,
    shuffle,
    splat,
    store,
    transpose8,
    transpose16,
)

# What a tile of 16 rows needs of 256 columns beside codes, float32 [lane of scales][16 rows] each.
BACK = 16 * 64  # behind the scales: what takes the sums' start away again, -start x scale
MINS = 2 * 16 * 64
BYTES = 3 * 16 * 64

# A tile's sums start at the bits of the float 1.5 x 2^23: read as a float, such a sum is 1.5 x 2^23
# + sum, exact below 2^22, so that one multiply-add yields scale x sum, rounded once as a product is
# (scales are a half times a small integer, their product with 1.5 x 2^23 is exact). Without a fused
# multiply-add the sums start at 0 and are converted.
_FUSED = isa.SET.has_fma
_START = 0x4B400000 if _FUSED else 0
_FLOAT_START = 1.5 * 2.0**23 if _FUSED else 0.0
# Codes above 127 have the centre 128, which sets of signed bytes take off before they multiply.
WIDE_CENTRE = 128
_TAKEN_OFF = WIDE_CENTRE if isa.SET.signed_wide else 0
_even = shuffle(range(0, 16, 2))
_odd = shuffle(range(1, 16, 2))


@njit
def _left(centre):
    """Return what of ``centre`` is in the integer sums."""
    return centre - _TAKEN_OFF if centre == WIDE_CENTRE else centre


def token_sums(token, n, block, centre, kind):
    """Return what a token's sums of codes take away in 256 columns, one per lane of scales.

    With ``centre`` that is the negative sums times ``centre``, else the bits of them as floats.
    """
    raise NotImplementedError


@overload(token_sums, jit_options={"forceinline": True})
def _overload_token_sums(token, n, block, centre, kind):
    if kind.instance_type.lanes == 8:  # scales per 32 columns

        def per_32(token, n, block, centre, kind):
            sixteens = load(token + n + n // 8 + 64 * block, i32x16)
            sums = -(_even(sixteens, sixteens) + _odd(sixteens, sixteens))
            if centre:
                return sums * splat(int32(_left(centre)), i32x8)
            return bitcast(convert(sums, f32x8), i32x8)

        return per_32

    def per_16(token, n, block, centre, kind):
        sums = -load(token + n + n // 8 + 64 * block, i32x16)
        if centre:
            return sums * splat(int32(_left(centre)), i32x16)
        return bitcast(convert(sums, f32x16), i32x16)

    return per_16


@njit
def weighted(sums, scales, mins, low, centre):
    """Return scale x sum - minimum x sum of codes lane by lane; ``low``: of token_sums."""
    if centre:
        return convert(sums + low, f32x16) * scales
    return fma(mins, bitcast(low, f32x16), convert(sums, f32x16) * scales)


@njit
def tile_start(low, centre):
    """Return where a tile's sums start; ``low``: the address of one of token_sums."""
    start = splat(int32(_START), i32x16)
    return start + splat(load(low, int32), i32x16) if centre else start


@njit
def tile_weighted(sums, tile, lane, low, centre):
    """Return the weighted sums of 16 rows; ``low``: the address of one of token_sums."""
    scales = load(tile + 64 * lane, f32x16)
    if _FUSED:
        value = fma(bitcast(sums, f32x16), scales, load(tile + BACK + 64 * lane, f32x16))
    else:
        value = convert(sums, f32x16) * scales
    if centre:
        return value
    return fma(load(tile + MINS + 64 * lane, f32x16), splat(load(low, float32), f32x16), value)


@njit
def lanes_low(codes, centre, kind, floats):
    """Return where sums start, or the bits of the negative sums of codes as floats."""
    low = -codes
    if centre:
        return low * splat(int32(_left(centre)), kind) + splat(int32(_START), kind)
    return bitcast(convert(low, floats), kind)


@njit
def lanes_start(low, centre, kind):
    """Return where sums start whose ``lanes_low`` this is."""
    return low if centre else splat(int32(_START), kind)


@njit
def lanes_back(scales, floats):
    """Return what takes the start away again."""
    return scales * splat(float32(-_FLOAT_START), floats)


@njit
def lanes_weighted(sums, row, low, centre, floats):
    """Return the weighted sums of a row, (scale, lanes_back, minimum) in all lanes, by tokens."""
    scale, back, minimum = row
    if _FUSED:
        value = fma(bitcast(sums, floats), scale, back)
    else:
        value = convert(sums, floats) * scale
    if centre:
        return value
    return fma(minimum, bitcast(low, floats), value)


def put_row(rows, r, values):
    """Store row ``r``'s lanes for ``turn``: of 8 lanes, rows r and r + 8 stand together."""
    raise NotImplementedError


@overload(put_row, jit_options={"forceinline": True})
def _overload_put_row(rows, r, values):
    if values.lanes == 8:
        return lambda rows, r, values: store(rows + 64 * (r % 8) + 32 * (r // 8), values)
    return lambda rows, r, values: store(rows + 64 * r, values)


def turn(rows, target, kind):
    """Write lane j of the 16 rows of ``put_row`` as vector j."""
    raise NotImplementedError


@overload(turn, jit_options={"forceinline": True})
def _overload_turn(rows, target, kind):
    if kind.instance_type.lanes == 8:
        return lambda rows, target, kind: transpose8(rows, target)
    return lambda rows, target, kind: transpose16(rows, int64(64), target, int64(64))


@njit
def put_scales(scales, mins, tile, centre, kind):
    """Turn 16 rows' scales and minimums into the tile."""
    turn(scales, tile, kind)
    if not centre:
        turn(mins, tile + MINS, kind)
    back = splat(float32(-_FLOAT_START), f32x16)
    for i in range(0, BACK, 64):
        store(tile + BACK + i, load(tile + i, f32x16) * back)
