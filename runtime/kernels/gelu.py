"""GELU by the exact normal distribution, a vector at a time. It knows no plan."""

from ggq.jit import njit
from ggq.simd import f32x16, fabs, fma, select, splat, zeros
from ggq.simd.math import exp

__all__ = ["gelu"]

_HALF_ROOT = 0.7071067811865476
# Abramowitz and Stegun 7.1.26: erf to 1.5e-7
_P = 0.3275911
_A1, _A2, _A3, _A4, _A5 = 0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429


@njit
def _erf(x):
    size, one = fabs(x), splat(1.0, f32x16)
    t = one / fma(size, splat(_P, f32x16), one)
    p = fma(splat(_A5, f32x16), t, splat(_A4, f32x16))
    p = fma(p, t, splat(_A3, f32x16))
    p = fma(p, t, splat(_A2, f32x16))
    p = fma(p, t, splat(_A1, f32x16))
    y = one - p * t * exp(-(x * x))
    return select(x < zeros(f32x16), -y, y)


@njit
def gelu(x):
    """Return x * Phi(x)."""
    return splat(0.5, f32x16) * x * (splat(1.0, f32x16) + _erf(x * splat(_HALF_ROOT, f32x16)))
