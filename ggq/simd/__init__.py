"""SIMD vectors for numba kernels: types by name, operations on them, and raw memory access.

The names stand for those of intrinsics.py, which are made when a kernel is compiled (deferred.py).
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ggq.simd import target  # noqa: F401  (configures numba before its first import)

# isort: split
from ggq.simd.deferred import Deferred, overload
from ggq.simd.structs import FLOAT, INT, ROWS, Struct

if TYPE_CHECKING:
    from ggq.simd.intrinsics import *  # noqa: F403

_DEFERRED = (
    "Vector",
    "any_lane",
    "atomic_add",
    "atomic_load",
    "atomic_store",
    "bitcast",
    "call_clock",
    "call_kernel",
    "call_plain",
    "compare_exchange",
    "columns8",
    "constant_table",
    "convert",
    "dot4",
    "dot4_wide",
    "dots",
    "f16x16",
    "f16x8",
    "f32x16",
    "f32x2",
    "f32x4",
    "f32x8",
    "fabs",
    "first_lane",
    "float32",
    "floor",
    "fma",
    "gather",
    "gather_columns",
    "gather_rows",
    "high_half",
    "i16x16",
    "i16x32",
    "i32x16",
    "i32x8",
    "i64x2",
    "i64x4",
    "i64x8",
    "i8x16",
    "i8x32",
    "i8x64",
    "i8x8",
    "int32",
    "int64",
    "int8",
    "join",
    "lane",
    "load",
    "load_half",
    "lookup16",
    "lookup8",
    "low_half",
    "mask64",
    "pause",
    "prefetch",
    "prefetch_far",
    "products",
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
    "transpose16",
    "transpose8",
    "turn",
    "u16x16",
    "u16x32",
    "u16x4",
    "u16x8",
    "u32x16",
    "u32x4",
    "u32x8",
    "u8x16",
    "u8x32",
    "u8x64",
    "u8x8",
    "uint16",
    "uint32",
    "uint64",
    "uint8",
    "vector_constant",
    "view",
    "vmax",
    "vmin",
    "with_lane",
    "zeros",
)
__all__ = ["FLOAT", "INT", "ROWS", "Deferred", "Struct", "overload", *_DEFERRED]


def __getattr__(name: str) -> Deferred:
    if name not in _DEFERRED:
        raise AttributeError(f"module 'ggq.simd' has no attribute {name!r}")
    made = Deferred(name, lambda: getattr(import_module("ggq.simd.intrinsics"), name))
    return globals().setdefault(name, made)
