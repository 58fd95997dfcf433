"""columns as plan rows: a token is an item, 16 columns are copied at a time, or one."""

from ggq.jit import kernel
from ggq.runtime.backends.numba.plan import Work
from ggq.simd import INT, ROWS, f32x16, float32, load, store


@kernel(x=ROWS, out=ROWS, start=INT, width=INT, group=INT, groups=INT)
def _columns(args, first, last):
    x, stride, out, out_stride = args.x, args.x_stride, args.out, args.out_stride
    start, width, group, groups = args.start, args.width, args.group, args.groups
    for item in range(first, last):
        for g in range(groups):
            source = x + item * stride + 4 * (g * group + start)
            to = out + item * out_stride + 4 * g * width
            if width % 16 and groups > 1:  # a vector would reach into the next group
                for i in range(0, 4 * width, 4):
                    store(to + i, load(source + i, float32))
            else:
                for i in range(0, 4 * width, 64):
                    store(to + i, load(source + i, f32x16))


def run(backend, x, first, width, group=None):
    """Record the copy of those columns."""
    group = group or x.width
    groups = x.width // group

    def make(value, form, residual):
        source, out = x.f32(), backend.new(value)
        backend.recorder.row(
            "columns",
            _columns,
            Work(slot=x.slot),
            reads=[source],
            writes=[out],
            x=source,
            out=out,
            start=first,
            width=width,
            group=group,
            groups=groups,
        )
        return out

    return backend.value(groups * width, x.slot, make)
