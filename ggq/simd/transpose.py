"""Transposes in memory: rows at any 16 addresses to one row per lane and back, square matrices.

It knows addresses and element kinds only; a kernel uses it to put one block in each lane.
"""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ggq.simd.memory import pointer
from ggq.simd.types import cast_type

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _swapped(builder, a, b, distance):
    """Emit two rows with the blocks off the diagonal exchanged, ``distance`` lanes wide."""
    count = a.type.count
    kind = ir.VectorType(_I32, count)
    # Lanes count .. 2 count - 1 name the second operand.
    first = [x + count - distance if x & distance else x for x in range(count)]
    second = [x + count if x & distance else x + distance for x in range(count)]
    return tuple(builder.shuffle_vector(a, b, ir.Constant(kind, mask)) for mask in (first, second))


def _transposed(builder, rows):
    """Emit the transpose by exchanging blocks: distance 1, 2, 4, 8."""
    count = len(rows)
    distance = 1
    while distance < count:
        swapped = list(rows)
        for i in range(count):
            if not i & distance:
                pair = _swapped(builder, rows[i], rows[i + distance], distance)
                swapped[i], swapped[i + distance] = pair
        rows = swapped
        distance *= 2
    return rows


@intrinsic
def sum_rows(typingctx, address, kind):
    """Return the vector of the sums of 16 consecutive float vectors: lane i sums vector i.

    Each stage of a transpose, followed by an addition, halves the number of vectors.
    """
    vector = cast_type(kind)

    def codegen(context, builder, sig, args):
        rows = []
        for at in _consecutive(builder, args[0], vector):
            rows.append(builder.load(pointer(builder, at, vector.llvm)))
            rows[-1].align = 1
        distance = 1
        while len(rows) > 1:
            pairs = zip(rows[::2], rows[1::2], strict=True)
            rows = [builder.fadd(*_swapped(builder, a, b, distance)) for a, b in pairs]
            distance *= 2
        return rows[0]

    return vector(address, kind), codegen


def _row_addresses(builder, table, offset, count):
    """Emit ``table[i] + offset`` for the int64 addresses at ``table``."""
    for i in range(count):
        slot = builder.add(table, ir.Constant(_I64, 8 * i))
        yield builder.add(builder.load(pointer(builder, slot, _I64)), offset)


def _consecutive(builder, address, vector):
    """Emit the addresses of as many vectors in a row as one has lanes."""
    size = vector.lanes * int(vector.element[1:]) // 8
    for i in range(vector.lanes):
        yield builder.add(address, ir.Constant(_I64, size * i))


def _strided(builder, start, step):
    """Emit the addresses of 16 rows ``step`` bytes apart."""
    for i in range(16):
        yield builder.add(start, builder.mul(step, ir.Constant(step.type, i)))


def _move(builder, kind, sources, targets):
    rows = []
    for address in sources:
        row = builder.load(pointer(builder, address, kind))
        row.align = 1
        rows.append(row)
    for address, row in zip(targets, _transposed(builder, rows), strict=True):
        builder.store(row, pointer(builder, address, kind)).align = 1


@intrinsic
def gather_rows(typingctx, table, offset, target, kind):
    """Load a vector at each address of ``table`` + ``offset`` and store them transposed.

    ``kind`` has 16 lanes, ``table`` holds 16 int64 addresses; lane i of the 16 vectors at
    ``target`` comes from address i.
    """
    vector = cast_type(kind)

    def codegen(context, builder, sig, args):
        sources = _row_addresses(builder, args[0], args[1], vector.lanes)
        targets = _consecutive(builder, args[2], vector)
        _move(builder, vector.llvm, sources, targets)
        return context.get_dummy_value()

    return types.void(table, offset, target, kind), codegen


@intrinsic
def scatter_rows(typingctx, source, table, offset, kind):
    """Store lane i of 16 vectors at ``source`` as a row at ``table[i]`` + ``offset``."""
    vector = cast_type(kind)

    def codegen(context, builder, sig, args):
        sources = _consecutive(builder, args[0], vector)
        targets = _row_addresses(builder, args[1], args[2], vector.lanes)
        _move(builder, vector.llvm, sources, targets)
        return context.get_dummy_value()

    return types.void(source, table, offset, kind), codegen


@intrinsic
def transpose16(typingctx, source, source_stride, target, target_stride):
    """Transpose a 16 x 16 matrix of 32-bit elements from memory to memory; strides in bytes."""

    def codegen(context, builder, sig, args):
        sources, targets = _strided(builder, *args[:2]), _strided(builder, *args[2:])
        _move(builder, ir.VectorType(_I32, 16), sources, targets)
        return context.get_dummy_value()

    return types.void(source, source_stride, target, target_stride), codegen
