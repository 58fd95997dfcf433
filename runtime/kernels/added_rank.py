"""What a low-rank change adds to outputs: scale x B t, 16 outputs at a time. It knows no plan."""

from ggq.jit import kernel
from ggq.simd import INT, ROWS, f32x16, float32, fma, int64, load, splat, store, zeros

__all__ = ["add_rank"]


@kernel(b=INT, rank=INT, t=ROWS, scales=INT, out=ROWS, state=INT)
def add_rank(args, first, last):
    """Add to outputs [16 first, 16 last) of every row whose scale is not 0.

    ``b``: float32 (groups, rank, 16); ``t``: A x; ``scales``: float32, one for each row; ``state``:
    the address of the number of rows. A row's sum ascends the rank, whatever rows lie beside it.
    """
    b, rank, scales = args.b, args.rank, args.scales
    t, t_stride, out, out_stride = args.t, args.t_stride, args.out, args.out_stride
    n = load(args.state, int64)
    for token in range(n):
        scale = load(scales + 4 * token, float32)
        if scale == float32(0):
            continue
        factors = t + token * t_stride
        for group in range(first, last):
            at, total = b + group * rank * 64, zeros(f32x16)
            for j in range(rank):
                factor = splat(load(factors + 4 * j, float32), f32x16)
                total = fma(load(at + 64 * j, f32x16), factor, total)
            to = out + token * out_stride + 64 * group
            store(to, fma(total, splat(scale, f32x16), load(to, f32x16)))
