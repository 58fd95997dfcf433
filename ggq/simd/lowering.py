"""Small LLVM-building helpers that the instruction-set files share; it knows no instruction set."""

from llvmlite import ir

I8, I16, I32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)


def lanes_of(builder, value, start, count):
    """Emit ``value[start : start + count]``."""
    mask = ir.Constant(ir.VectorType(I32, count), list(range(start, start + count)))
    return builder.shuffle_vector(value, value, mask)


def concatenate(builder, parts):
    """Emit the concatenation of equally typed vectors, a power of two of them."""
    while len(parts) > 1:
        count = 2 * parts[0].type.count
        mask = ir.Constant(ir.VectorType(I32, count), list(range(count)))
        parts = [
            builder.shuffle_vector(a, b, mask) for a, b in zip(parts[::2], parts[1::2], strict=True)
        ]
    return parts[0]


def pieces(builder, value, count):
    """Emit ``value`` cut into vectors of ``count`` lanes."""
    return [lanes_of(builder, value, i, count) for i in range(0, value.type.count, count)]


def by_pieces(builder, emit, lanes, acc, unsigned, signed):
    """Apply ``emit(acc, unsigned, signed)`` on native pieces of ``lanes`` 32-bit lanes and join."""
    if acc.type.count < lanes:  # widen a short vector rather than write a second form
        pad = lanes // acc.type.count
        wide = emit(
            concatenate(builder, [acc] * pad),
            concatenate(builder, [unsigned] * pad),
            concatenate(builder, [signed] * pad),
        )
        return lanes_of(builder, wide, 0, acc.type.count)
    parts = zip(
        pieces(builder, acc, lanes),
        pieces(builder, unsigned, 4 * lanes),
        pieces(builder, signed, 4 * lanes),
        strict=True,
    )
    return concatenate(builder, [emit(*part) for part in parts])


def call(builder, name, result, args):
    """Emit a call of an LLVM intrinsic by name."""
    function = builder.module.globals.get(name)
    if function is None:
        kind = ir.FunctionType(result, [a.type for a in args])
        function = ir.Function(builder.module, kind, name)
    return builder.call(function, args)


def splat(kind, value):
    """Return a constant vector with one value in every lane."""
    return ir.Constant(kind, [value] * kind.count)


def select_lookup8(builder, table, index):
    """Emit a lookup in the first 8 floats of ``table`` as a tree of selects."""
    kind = index.type
    level = [
        builder.shuffle_vector(
            table, table, ir.Constant(ir.VectorType(I32, kind.count), [i] * kind.count)
        )
        for i in range(8)
    ]
    for bit in range(3):
        mask = builder.icmp_unsigned(
            "!=", builder.and_(index, splat(kind, 1 << bit)), splat(kind, 0)
        )
        level = [builder.select(mask, b, a) for a, b in zip(level[::2], level[1::2], strict=True)]
    return level[0]


def select_lookup16(builder, table, index):
    """Emit a 16-entry byte lookup without a table instruction: a tree of four selects per bit."""
    kind = index.type
    level = [
        builder.shuffle_vector(
            table, table, ir.Constant(ir.VectorType(I32, kind.count), [i] * kind.count)
        )
        for i in range(16)
    ]
    for bit in range(4):
        mask = builder.icmp_unsigned(
            "!=", builder.and_(index, splat(kind, 1 << bit)), splat(kind, 0)
        )
        level = [builder.select(mask, b, a) for a, b in zip(level[::2], level[1::2], strict=True)]
    return level[0]
