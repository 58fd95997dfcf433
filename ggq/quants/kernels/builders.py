"""The three kernels of a block type, made from its ``unpack`` and compiled when first asked for."""

from collections.abc import Callable
from typing import Any

from ggq.jit import kernel
from ggq.quants.base import Kernels
from ggq.quants.kernels import abi
from ggq.quants.kernels.blocks import decode_tokens, dequantize_rows
from ggq.quants.kernels.tiles import prefill_tokens

__all__ = ["matmul"]


def matmul(unpack: Callable, dot: Any, stride: int, scales: Any, centre: Any = 0) -> Kernels:
    """Return the kernels of blocks that ``unpack`` (blocks.py) reads, ``stride`` bytes for 256.

    ``dot``: the product of codes and activations; ``scales``: the vector type of the scales;
    ``centre``: the code that means 0 where it is the same in all blocks (tiles.py).
    """

    @kernel(abi.MATMUL)
    def decode(args, first, last):
        decode_tokens(args, first, last, unpack, dot, stride, scales, centre)

    @kernel(abi.MATMUL)
    def prefill(args, first, last):
        prefill_tokens(args, first, last, unpack, dot, stride, scales, centre)

    @kernel(abi.MATMUL)
    def dequantize(args, first, last):
        dequantize_rows(args, first, last, unpack, stride)

    return Kernels(decode, prefill, dequantize, activations="q8")
