"""Transposes in memory: rows at any 16 addresses to one row per lane and back, square matrices.

It knows addresses and element kinds only; a kernel uses it to put one block in each lane.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ggq.simd import isa
from ggq.simd.lowering import concatenate
from ggq.simd.memory import pointer
from ggq.simd.types import Vector, cast_type

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _swapped(builder, a, b, distance):
    """Emit two rows with the blocks off the diagonal exchanged, ``distance`` lanes wide."""
    count = a.type.count
    kind = ir.VectorType(_I32, count)
    # Lanes count .. 2 count - 1 name the second operand.
    first = [x + count - distance if x & distance else x for x in range(count)]
    second = [x + count if x & distance else x + distance for x in range(count)]
    return tuple(builder.shuffle_vector(a, b, ir.Constant(kind, mask)) for mask in (first, second))


def _shuffled(builder, a, b, four):
    """Emit the same shuffle of every four lanes; 4 .. 7 name the second operand's."""
    count = a.type.count
    mask = [i // 4 * 4 + x % 4 + (count if x > 3 else 0) for i in range(0, count, 4) for x in four]
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, count), mask))


def _fours_transposed(builder, a, b, c, d):
    """Emit the transposes of all 4 x 4 blocks of four rows: one instruction each of SSE."""
    low, high = (0, 4, 1, 5), (2, 6, 3, 7)
    first = [_shuffled(builder, *pair, four) for four in (low, high) for pair in ((a, b), (c, d))]
    halves = (0, 1, 4, 5), (2, 3, 6, 7)
    return [_shuffled(builder, x, y, h) for x, y in (first[:2], first[2:]) for h in halves]


def _transposed(builder, rows):
    """Emit the transpose: blocks of four, then exchanging blocks at distance 4, 8."""
    count = len(rows)
    rows = [row for i in range(0, count, 4) for row in _fours_transposed(builder, *rows[i : i + 4])]
    distance = 4
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
def turn(typingctx, vectors):
    """Return four vectors as the transposes of their 4 x 4 blocks of 32-bit lanes.

    Vector i then holds, in the lane 4 l + k, lane 4 l + i of what was vector k.
    """

    def codegen(context, builder, sig, args):
        vector = sig.return_type.dtype
        kind = ir.VectorType(_I32, vector.lanes * int(vector.element[1:]) // 32)
        four = [builder.bitcast(v, kind) for v in cgutils.unpack_tuple(builder, args[0], 4)]
        done = _fours_transposed(builder, *four)
        done = [builder.bitcast(v, vector.llvm) for v in done]
        return context.make_tuple(builder, sig.return_type, done)

    return vectors(vectors), codegen


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


def _strided(builder, start, step, count=16):
    """Emit the addresses of rows ``step`` bytes apart."""
    for i in range(count):
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
def gather_columns(typingctx, table, offset, kind):
    """Return 8 vectors: lane i of the j-th is dword j at the i-th address.

    Addresses are those of ``table`` plus ``offset``: as many int64 as ``kind`` has lanes of 32
    bits, 8 or 16.
    """
    vector = cast_type(kind)

    def codegen(context, builder, sig, args):
        half = ir.VectorType(_I32, 8)
        rows = []
        for address in _row_addresses(builder, args[0], args[1], vector.lanes):
            row = builder.load(pointer(builder, address, half))
            row.align = 1
            rows.append(row)
        if vector.lanes == 16:
            rows = [
                concatenate(builder, list(pair)) for pair in zip(rows[:8], rows[8:], strict=True)
            ]
        turned = [builder.bitcast(v, vector.llvm) for v in _transposed(builder, rows)]
        return context.make_tuple(builder, sig.return_type, turned)

    return types.UniTuple(vector, 8)(table, offset, kind), codegen


@intrinsic
def transpose16(typingctx, source, source_stride, target, target_stride):
    """Transpose a 16 x 16 matrix of 32-bit elements from memory to memory; strides in bytes."""

    def codegen(context, builder, sig, args):
        sources, targets = _strided(builder, *args[:2]), _strided(builder, *args[2:])
        _move(builder, ir.VectorType(_I32, 16), sources, targets)
        return context.get_dummy_value()

    return types.void(source, source_stride, target, target_stride), codegen


@intrinsic
def columns8(typingctx, source):
    """Return the columns of both halves of 8 consecutive vectors of 16 floats.

    Lane r of the j-th is lane j of row r, lane r + 8 is lane 8 + j. With short registers quarters
    change places as they are loaded, up to 16 bytes beside: a blend is cheaper than a shuffle.
    """
    vector = Vector("f32", 16)

    def codegen(context, builder, sig, args):
        def quarters_from(row, first):
            at = builder.add(args[0], ir.Constant(_I64, 64 * row + 16 * first))
            value = builder.load(pointer(builder, at, vector.llvm))
            value.align = 1
            return value

        if isa.SET.lanes == 16:
            columns = _transposed(builder, [quarters_from(r, 0) for r in range(8)])
            return context.make_tuple(builder, sig.return_type, columns)
        odd = ir.Constant(ir.VectorType(_I32, 16), [i + 4 * (i & 4) for i in range(16)])
        columns = []
        for half in range(2):
            pairs = [(quarters_from(r, half), quarters_from(r + 4, half - 1)) for r in range(4)]
            rows = [builder.shuffle_vector(*pair, odd) for pair in pairs]
            columns += _fours_transposed(builder, *rows)
        return context.make_tuple(builder, sig.return_type, columns)

    return types.UniTuple(vector, 8)(source), codegen


@intrinsic
def transpose8(typingctx, source, target):
    """Transpose both halves of 8 consecutive vectors of 16 32-bit elements."""

    def codegen(context, builder, sig, args):
        step, kind = ir.Constant(_I64, 64), ir.VectorType(_I32, 16)
        sources, targets = _strided(builder, args[0], step, 8), _strided(builder, args[1], step, 8)
        _move(builder, kind, sources, targets)
        return context.get_dummy_value()

    return types.void(source, target), codegen
