"""The three kernels of a block type, made from its ``unpack`` and compiled when first asked for."""

from collections.abc import Callable
from typing import Any

from ggq.jit import kernel, njit
from ggq.quants.base import Kernels
from ggq.quants.kernels import abi, sums, tiles, tokens
from ggq.quants.kernels.blocks import dequantize_rows
from ggq.quants.kernels.decode import decode_tokens
from ggq.quants.kernels.turned import turn_unpacked
from ggq.simd import dot4, dot4_wide, f32x8, isa, products
from ggq.simd import dots as dots_up_to

__all__ = ["matmul"]

_BY_TOKENS = isa.SET.by_tokens


def matmul(
    unpack: Callable,
    largest: int,
    stride: int,
    scales: Any,
    centre: Any = 0,
    turned: Callable | None = None,
    halves: bool = False,
) -> Kernels:
    """Return the kernels of blocks that ``unpack`` (blocks.py) reads, ``stride`` bytes for 256.

    ``largest``: of the codes; ``scales``: the vector type of the scales; ``centre``: the code that
    means 0 where it is the same in all blocks (tiles.py), 128 and only then for codes above 127;
    ``turned``: reads a block in the order of decode.py where that is cheaper than turning what
    ``unpack`` gives, with ``halves`` in that of turned.turned_blocks.
    """
    assert (largest > 127) == (centre == sums.WIDE_CENTRE)
    dots, adds = dots_up_to(largest, halves), products(largest)
    dot = dot4 if largest < 128 else dot4_wide
    words = largest > 127

    if turned is None:

        @njit
        def turned(block):
            return turn_unpacked(unpack(block))

    @kernel(abi.MATMUL)
    def decode(args, first, last):
        decode_tokens(args, first, last, stride, scales, turned, dots, centre, halves)

    @kernel(abi.MATMUL)
    def prefill(args, first, last):
        if _BY_TOKENS:
            tokens.prefill(args, first, last, unpack, adds, stride, scales, centre, words)
        else:
            tiles.prefill(args, first, last, unpack, dot, stride, scales, centre)

    @kernel(abi.MATMUL)
    def dequantize(args, first, last):
        dequantize_rows(args, first, last, unpack, stride)

    exact = largest, bool(centre), 1 if scales is f32x8 else 2
    return Kernels(decode, prefill, dequantize, activations="q8", sums=exact)
