"""The scale searches of ggml, sixteen groups at a time: one group per vector lane.

Values, weights and codes lie in scratch as [position][lane], 64 bytes of float32 per position. A
lane does the float operations of ggml's scalar code in the same order, so that the bytes agree: no
fused multiply-add, no reassociation. It knows no block layout.
"""

import numpy as np

from ggq.jit import njit
from ggq.simd import (
    any_lane,
    bitcast,
    convert,
    f32x16,
    fabs,
    i32x16,
    load,
    select,
    splat,
    stack,
    store,
    u8x16,
    zeros,
)

LANES = 16
STEP = 64  # bytes from position to position in float32 scratch
TINY = np.float32(1e-15)  # ggml's GROUP_MAX_EPS: groups below it count as zero


@njit
def full(value):
    """Return a float32 vector with ``value`` in every lane."""
    return splat(value, f32x16)


@njit
def at(base, i):
    """Load position ``i`` of float32 scratch."""
    return load(base + STEP * i, f32x16)


@njit
def put(base, i, value):
    """Store position ``i`` of float32 scratch."""
    store(base + STEP * i, value)


@njit
def put_codes(base, i, codes):
    """Store the integer lanes ``codes`` as bytes at position ``i`` of code scratch."""
    store(base + LANES * i, convert(codes, u8x16))


@njit
def smaller(a, b):
    """Return a < b ? a : b, as C writes it."""
    return select(a < b, a, b)


@njit
def larger(a, b):
    """Return a > b ? a : b, as C writes it."""
    return select(a > b, a, b)


@njit
def clamp(value, low, high):
    """Return ``value`` held between two vectors; NaN becomes ``high``."""
    return larger(smaller(value, high), low)


@njit
def nearest_int(value):
    """Return ggml's nearest_int: half to even, wrapping beyond 2**22."""
    bits = bitcast(value + full(12582912.0), i32x16)
    return (bits & splat(0x7FFFFF, i32x16)) - splat(0x400000, i32x16)


@njit
def nearest(value):
    """Return nearest_int as float32 for values within 2**22."""
    return (value + full(12582912.0)) - full(12582912.0)


@njit
def nearest_clamped(value, low, high):
    """Return nearest_int held between two integers, as float32, for any value."""
    return convert(clamp(nearest_int(value), splat(low, i32x16), splat(high, i32x16)), f32x16)


@njit
def sum_of_squares(x, n):
    """Return the sum of squares of ``n`` positions, first to last."""
    total = zeros(f32x16)
    for i in range(n):
        v = at(x, i)
        total = total + v * v
    return total


@njit
def sum_of(values, n):
    """Return the sum of ``n`` positions, first to last."""
    total = zeros(f32x16)
    for i in range(n):
        total = total + at(values, i)
    return total


@njit
def peak(x, n):
    """Return the value of largest magnitude (the first of equals) and that magnitude."""
    best, magnitude = zeros(f32x16), zeros(f32x16)
    for i in range(n):
        v = at(x, i)
        a = fabs(v)
        above = a > magnitude
        best, magnitude = select(above, v, best), select(above, a, magnitude)
    return best, magnitude


@njit
def scale_search(x, w, n, nmax, finite, codes):
    """Return the scale d that fits x = d * (code - nmax) best under weights ``w`` (make_qx_quants).

    Tries 19 inverse scales around nmax / peak; writes the codes 0 .. 2 nmax - 1 of the best.
    ``finite`` promises finite ``x``, which saves the wrapping of nearest_int.
    """
    top = np.float32(nmax)
    best_value, magnitude = peak(x, n)
    best_inverse = full(-top) / best_value
    products, squares = _moments(x, w, n, best_inverse, nmax, finite)
    scale = select(squares != zeros(f32x16), products / squares, zeros(f32x16))
    best = scale * products
    for step in range(-9, 10):
        if step != 0:
            inverse = full(-(top + np.float32(0.1) * np.float32(step))) / best_value
            products, squares = _moments(x, w, n, inverse, nmax, finite)
            better = (squares > zeros(f32x16)) & (products * products > best * squares)
            ratio = products / squares
            scale = select(better, ratio, scale)
            best = select(better, ratio * products, best)
            best_inverse = select(better, inverse, best_inverse)
    empty = magnitude < full(TINY)
    for i in range(n):
        l = _signed_level(best_inverse * at(x, i), nmax, finite) + full(top)  # noqa: E741
        put_codes(codes, i, convert(select(empty, zeros(f32x16), l), i32x16))
    return select(empty, zeros(f32x16), scale)


@njit
def _signed_level(value, nmax, finite):
    """Return nearest_int held between -nmax and nmax - 1, as float32."""
    if finite:
        return clamp(nearest(value), full(np.float32(-nmax)), full(np.float32(nmax - 1)))
    return nearest_clamped(value, -nmax, nmax - 1)


@njit
def _moments(x, w, n, inverse, nmax, finite):
    """Return sum(w x l) and sum(w l l) for the codes l that ``inverse`` gives."""
    products, squares = zeros(f32x16), zeros(f32x16)
    for i in range(n):
        v, weight = at(x, i), at(w, i)
        l = _signed_level(inverse * v, nmax, finite)  # noqa: E741
        products = products + weight * v * l
        squares = squares + weight * l * l
    return products, squares


@njit
def descent_search(x, nmax, scales, codes):
    """Store the scales d of four groups of 16, x = d * (code - nmax) (make_q3_quants).

    Weights are x squared; one code moves at a time. A round that changes nothing in a lane would
    not in the next either. Four groups go together because each step waits for a division.
    """
    zero = zeros(f32x16)
    low, high = full(np.float32(-nmax)), full(np.float32(nmax - 1))
    current, products, squares = stack(4096), stack(256), stack(256)
    for g in range(4):
        inverse = low / peak(x + 1024 * g, 16)[0]
        total, total2 = zero, zero
        for i in range(16):
            v = at(x, 16 * g + i)
            l = clamp(nearest(inverse * v), low, high)  # noqa: E741
            put(current, 16 * g + i, l)
            weight = v * v
            total = total + weight * v * l
            total2 = total2 + weight * l * l
        put(products, g, total)
        put(squares, g, total2)
    for _ in range(5):
        changed = zero != zero
        for i in range(16):
            for g in range(4):
                changed = changed | _move_code(x, current, products, squares, 16 * g + i, g, nmax)
        if not any_lane(changed):
            break
    for g in range(4):
        empty = peak(x + 1024 * g, 16)[1] < full(TINY)
        for i in range(16 * g, 16 * g + 16):
            l = at(current, i) - low  # noqa: E741
            put_codes(codes, i, convert(select(empty, zero, l), i32x16))
        squared = at(squares, g)
        scale = at(products, g) / squared
        put(scales, g, select(empty | ~(squared > zero), zero, scale))


@njit
def _move_code(x, current, products, squares, i, g, nmax):
    """Give position ``i`` of group ``g`` the code that the others' scale asks for if it helps."""
    zero = zeros(f32x16)
    total, total2 = at(products, g), at(squares, g)
    v, l = at(x, i), at(current, i)  # noqa: E741
    weight = v * v
    others = total - weight * v * l
    rest = total2 - weight * l * l
    new = nearest_clamped(v * rest / others, -nmax, nmax - 1)
    with_new = others + weight * v * new
    rest_new = rest + weight * new * new
    better = (others > zero) & (new != l) & (rest_new > zero)
    better = better & (with_new * with_new * total2 > total * total * rest_new)
    put(current, i, select(better, new, l))
    put(products, g, select(better, with_new, total))
    put(squares, g, select(better, rest_new, total2))
    return better


@njit
def scale_min_search(x, w, n, nmax, first, delta, steps, absolute, codes):
    """Return (d, m) that fit x = d * code - m best under weights ``w`` (make_qkx2, make_qkx3).

    Solves the weighted least squares for each of ``steps`` + 1 inverse scales, starting ``first``
    levels from nmax in strides of ``delta``; ``absolute`` judges by absolute, not squared, errors.
    """
    zero = zeros(f32x16)
    top = np.float32(nmax)
    low, high, sum_w, sum_x = _extent(x, w, n)
    low = select(low > zero, zero, low)  # keeps -0
    empty = high <= low
    best_inverse, best_low = full(top) / (high - low), low
    scale = full(np.float32(1)) / best_inverse
    trial = stack(2048)
    for i in range(n):
        put(trial, i, nearest_clamped(best_inverse * (at(x, i) - low), 0, nmax))
    best = _error(x, w, n, trial, scale, low, absolute)
    for step in range(steps + 1):
        numerator = first + delta * np.float32(step) + top
        inverse = full(numerator) / (high - low)
        sum_l, sum_l2, sum_xl = zero, zero, zero
        for i in range(n):
            v, weight = at(x, i), at(w, i)
            l = nearest_clamped(inverse * (v - low), 0, nmax)  # noqa: E741
            put(trial, i, l)
            wl = weight * l
            sum_l = sum_l + wl
            sum_l2 = sum_l2 + wl * l
            sum_xl = sum_xl + wl * v
        determinant = sum_w * sum_l2 - sum_l * sum_l
        new_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
        new_low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
        above = new_low > zero
        new_scale = select(above, sum_xl / sum_l2, new_scale)
        new_low = select(above, zero, new_low)
        error = _error(x, w, n, trial, new_scale, new_low, absolute)
        better = (determinant > zero) & (error < best)
        best_inverse, best_low = (
            select(better, inverse, best_inverse),
            select(better, low, best_low),
        )
        best = select(better, error, best)
        scale, low = select(better, new_scale, scale), select(better, new_low, low)
    for i in range(n):
        l = nearest_clamped(best_inverse * (at(x, i) - best_low), 0, nmax)  # noqa: E741
        put_codes(codes, i, convert(select(empty, zero, l), i32x16))
    return select(empty, zero, scale), -low


@njit
def _extent(x, w, n):
    """Return smallest and largest value, sum of weights and weighted sum."""
    low = high = at(x, 0)
    sum_w = at(w, 0)
    sum_x = sum_w * low
    for i in range(1, n):
        v, weight = at(x, i), at(w, i)
        low, high = smaller(v, low), larger(v, high)
        sum_w = sum_w + weight
        sum_x = sum_x + weight * v
    return low, high, sum_w, sum_x


@njit
def _error(x, w, n, trial, scale, low, absolute):
    """Return the weighted error of ``scale`` * trial + ``low``."""
    total = zeros(f32x16)
    if absolute:
        for i in range(n):
            total = total + at(w, i) * fabs(scale * at(trial, i) + low - at(x, i))
    else:
        for i in range(n):
            difference = scale * at(trial, i) + low - at(x, i)
            total = total + at(w, i) * (difference * difference)
    return total


@njit
def positive_search(x, w, n, nmax, codes):
    """Return the scale d that fits x = d * code, 0 <= code <= nmax, under weights (make_qp_quants).

    Picks one of nine inverse scales by squared error, then moves one code at a time. ggml keeps
    codes in bytes: negative ones, which only negative ``x`` asks for, come back 256 higher.
    """
    zero = zeros(f32x16)
    top = np.float32(nmax)
    peak_value = zero
    for i in range(n):
        peak_value = larger(peak_value, at(x, i))
    inverse = full(top) / peak_value
    best = _positive_error(x, w, n, inverse, nmax, True)
    for step in range(-4, 5):
        if step != 0:
            other = full(np.float32(0.1) * np.float32(step) + top) / peak_value
            error = _positive_error(x, w, n, other, nmax, False)
            better = error < best
            best, inverse = select(better, error, best), select(better, other, inverse)
    current = stack(2048)
    products, squares = zero, zero
    for i in range(n):
        v, weight = at(x, i), at(w, i)
        l = _at_most(inverse * v, nmax)  # noqa: E741
        put(current, i, _as_byte(l))
        products = products + weight * v * l
        squares = squares + weight * l * l
    products, squares = _positive_descent(x, w, n, nmax, current, products, squares)
    empty = peak_value < full(TINY)
    for i in range(n):
        put_codes(codes, i, convert(select(empty, zero, at(current, i)), i32x16))
    return select(empty | ~(squares > zero), zero, products / squares)


@njit
def _at_most(value, nmax):
    """Return nearest_int, but no more than ``nmax``, as float32."""
    return convert(smaller(splat(nmax, i32x16), nearest_int(value)), f32x16)


@njit
def _as_byte(level):
    """Return what is left of an integral float32 in an unsigned byte."""
    return convert(convert(level, i32x16) & splat(255, i32x16), f32x16)


@njit
def _positive_error(x, w, n, inverse, nmax, first):
    """Return the squared error of an inverse scale; ggml keeps the codes of the first in bytes."""
    total = zeros(f32x16)
    scale = full(np.float32(1)) / inverse
    for i in range(n):
        v = at(x, i)
        l = _at_most(inverse * v, nmax)  # noqa: E741
        difference = v - scale * (_as_byte(l) if first else l)
        total = total + at(w, i) * difference * difference
    return total


@njit
def _positive_descent(x, w, n, nmax, current, products, squares):
    zero = zeros(f32x16)
    for _ in range(5):
        changed = zero != zero
        for i in range(n):
            v, weight, l = at(x, i), at(w, i), at(current, i)  # noqa: E741
            others = products - weight * v * l
            rest = squares - weight * l * l
            new = _at_most(v * rest / others, nmax)
            with_new = others + weight * v * new
            rest_new = rest + weight * new * new
            better = (others > zero) & (rest > zero) & (new != l)
            gain = with_new * with_new * squares > products * products * rest_new
            better = better & gain
            put(current, i, select(better, _as_byte(new), l))
            products = select(better, with_new, products)
            squares = select(better, rest_new, squares)
            changed = changed | better
        if not any_lane(changed):
            break
    return products, squares
