"""SIMD vectors for numba kernels: types by name, operations on them, and raw memory access."""

from ggq.simd import target  # noqa: F401  (configures numba before its first import)

# isort: split
from ggq.simd.lanes import (
    bitcast,
    convert,
    first_lane,
    high_half,
    join,
    lane,
    lookup8,
    lookup16,
    low_half,
    mask64,
    shuffle,
    splat,
    spread,
    vector_constant,
    with_lane,
    zeros,
)
from ggq.simd.memory import load, load_half, prefetch, prefetch_far, stack, store, store_half
from ggq.simd.ops import (
    any_lane,
    dot4,
    dot4_wide,
    fabs,
    floor,
    fma,
    reduce_add,
    reduce_max,
    rint,
    round_away,
    select,
    sqrt,
    vmax,
    vmin,
)
from ggq.simd.structs import FLOAT, INT, ROWS, Struct, view
from ggq.simd.tables import constant_table, gather
from ggq.simd.transpose import (
    even_and_odd,
    gather_rows,
    scatter_rows,
    sums_of_2,
    sums_of_4,
    sums_of_8,
    transpose8,
    transpose16,
)
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
i64x8, i64x4 = Vector("i64", 8), Vector("i64", 4)
u16x4, u32x4 = Vector("u16", 4), Vector("u32", 4)
f32x2, f32x4 = Vector("f32", 2), Vector("f32", 4)

__all__ = [
    "FLOAT",
    "INT",
    "ROWS",
    "Struct",
    "Vector",
    "any_lane",
    "bitcast",
    "constant_table",
    "convert",
    "dot4",
    "dot4_wide",
    "even_and_odd",
    "f16x8",
    "f16x16",
    "f32x2",
    "f32x4",
    "f32x8",
    "f32x16",
    "fabs",
    "first_lane",
    "floor",
    "fma",
    "gather",
    "gather_rows",
    "high_half",
    "i8x8",
    "i8x16",
    "i8x32",
    "i8x64",
    "i16x16",
    "i16x32",
    "i32x8",
    "i32x16",
    "i64x4",
    "i64x8",
    "join",
    "lane",
    "load",
    "load_half",
    "lookup8",
    "lookup16",
    "low_half",
    "mask64",
    "prefetch",
    "prefetch_far",
    "reduce_add",
    "reduce_max",
    "rint",
    "round_away",
    "scatter_rows",
    "select",
    "shuffle",
    "splat",
    "spread",
    "sqrt",
    "stack",
    "store",
    "store_half",
    "sums_of_2",
    "sums_of_4",
    "sums_of_8",
    "transpose8",
    "transpose16",
    "u8x8",
    "u8x16",
    "u8x32",
    "u8x64",
    "u16x4",
    "u16x8",
    "u16x16",
    "u16x32",
    "u32x4",
    "u32x8",
    "u32x16",
    "vector_constant",
    "view",
    "vmax",
    "vmin",
    "with_lane",
    "zeros",
]
