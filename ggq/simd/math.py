"""Vector functions that activations need, in float32, a few ulp off."""

from ggq.jit import njit
from ggq.simd import (
    bitcast,
    convert,
    f32x16,
    fabs,
    fma,
    i32x16,
    rint,
    splat,
    vmax,
    vmin,
    zeros,
)

_LOG2_E = 1.4426950408889634
_LN2_HIGH = 0.693359375  # ln 2 in two parts: x - n ln 2 stays exact to float32
_LN2_LOW = -2.12194440e-4


@njit
def exp(x):
    """Return e^x per lane; below -87.3 it gives 0 within 1.2e-38, above 88.3 it saturates.

    Range reduction to |r| <= ln(2)/2, Taylor terms up to r^7 (error below 1e-8 there), then the
    exponent is added to the bits.
    """
    x = vmin(vmax(x, splat(-87.3, f32x16)), splat(88.3, f32x16))
    n = rint(x * splat(_LOG2_E, f32x16))
    r = fma(n, splat(-_LN2_HIGH, f32x16), x)
    r = fma(n, splat(-_LN2_LOW, f32x16), r)
    p = splat(1.0 / 5040, f32x16)
    p = fma(p, r, splat(1.0 / 720, f32x16))
    p = fma(p, r, splat(1.0 / 120, f32x16))
    p = fma(p, r, splat(1.0 / 24, f32x16))
    p = fma(p, r, splat(1.0 / 6, f32x16))
    p = fma(p, r, splat(0.5, f32x16))
    p = fma(p, r, splat(1.0, f32x16))
    p = fma(p, r, splat(1.0, f32x16))
    return bitcast(bitcast(p, i32x16) + (convert(n, i32x16) << splat(23, i32x16)), f32x16)


@njit
def sigmoid(x):
    """Return 1 / (1 + e^-x) per lane."""
    one = splat(1.0, f32x16)
    return one / (one + exp(-x))


@njit
def tanh(x):
    """Return the hyperbolic tangent per lane."""
    one = splat(1.0, f32x16)
    return splat(2.0, f32x16) * sigmoid(x + x) - one


@njit
def softplus(x):
    """Return log(1 + e^x) per lane.

    It is max(x, 0) + log(1 + t) with t = e^-|x|, and log(1 + t) = 2 artanh(s) with s = t / (2 + t),
    at most 1/3: seven terms of the series are exact to 2e-8.
    """
    t = exp(-fabs(x))
    s = t / (t + splat(2.0, f32x16))
    square = s * s
    p = splat(1.0 / 13, f32x16)
    p = fma(p, square, splat(1.0 / 11, f32x16))
    p = fma(p, square, splat(1.0 / 9, f32x16))
    p = fma(p, square, splat(1.0 / 7, f32x16))
    p = fma(p, square, splat(0.2, f32x16))
    p = fma(p, square, splat(1.0 / 3, f32x16))
    p = fma(p, square, splat(1.0, f32x16))
    return fma(s + s, p, vmax(x, zeros(f32x16)))
