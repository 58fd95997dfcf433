"""SIMD vectors for numba kernels: types by name, operations on them, and raw memory access."""

from ggq import jit  # noqa: F401  (configures numba before its first import)
from ggq.simd.ops import (
    any_lane,
    bitcast,
    convert,
    dot4,
    dot4_wide,
    fabs,
    floor,
    fma,
    high_half,
    join,
    lane,
    load,
    load_half,
    lookup16,
    mask64,
    prefetch,
    low_half,
    reduce_add,
    reduce_max,
    rint,
    round_away,
    select,
    shuffle,
    splat,
    spread,
    sqrt,
    stack,
    store,
    store_half,
    transpose16,
    vector_constant,
    vmax,
    vmin,
    with_lane,
    zeros,
)
from ggq.simd.transpose import gather_rows, scatter_rows
from ggq.simd.types import Vector

i8x64, u8x64 = Vector("i8", 64), Vector("u8", 64)
i8x32, u8x32 = Vector("i8", 32), Vector("u8", 32)
i8x16, u8x16 = Vector("i8", 16), Vector("u8", 16)
u8x8, i8x8 = Vector("u8", 8), Vector("i8", 8)
u16x32, i16x32 = Vector("u16", 32), Vector("i16", 32)
u16x16, i16x16, f16x16 = Vector("u16", 16), Vector("i16", 16), Vector("f16", 16)
u16x8, f16x8 = Vector("u16", 8), Vector("f16", 8)
i32x16, u32x16, f32x16 = Vector("i32", 16), Vector("u32", 16), Vector("f32", 16)
i32x8, u32x8, f32x8 = Vector("i32", 8), Vector("u32", 8), Vector("f32", 8)
