"""Quantizing activations to 8 bit: 256 columns of a token are one item."""

from ggq.jit import kernel
from ggq.quants.kernels.abi import SUPER
from ggq.runtime.kernels.rows import quantize_super
from ggq.simd import INT, ROWS


@kernel(x=ROWS, out=ROWS, width=INT, blocks=INT)
def quantize(args, first, last):
    """Write the quantized activations (quants/kernels/abi.py) of float32 rows."""
    width, blocks = args.width, args.blocks
    for item in range(first, last):
        token, block = item // blocks, item % blocks
        x, to = args.x + token * args.x_stride, args.out + token * args.out_stride
        quantize_super(x, to, SUPER * blocks, width, block)
