"""The dot product of sets without one: vpmaddubsw, which adds pairs of products in 16 bits.

It knows no set: these name the instructions on registers of 8 or 16 sums.
"""

from functools import reduce

from llvmlite import ir

from ggq.simd.lowering import I8, I16, I32, by_pieces, call, concatenate, lanes_of, splat

__all__ = ["MultiplyAdd", "terms"]


def terms(largest):
    """Return how many results of vpmaddubsw can be added in 16 bits: 1, 2, 4 or 8."""
    fit = 32767 // (2 * 127 * min(largest, 128))
    return 1 << min(fit, 8).bit_length() - 1


class MultiplyAdd:
    """``dot4`` and ``dots`` of a set (isa.py) on registers of ``lanes`` 32-bit lanes.

    ``pairs``, ``fours``, ``sign``: LLVM's names of vpmaddubsw, vpmaddwd and, where there is one,
    vpsignb. Codes above 127 are taken less 128 (``signed_wide``): 2 x 128 x 127 fits into 16 bits.
    """

    def __init__(self, lanes, pairs, fours, sign=None):
        self.lanes, self.sign = lanes, sign
        self.pairs_name, self.fours_name = pairs, fours
        self.bytes, self.words = ir.VectorType(I8, 4 * lanes), ir.VectorType(I16, 2 * lanes)
        self.sums = ir.VectorType(I32, lanes)

    def _pairs(self, builder, codes, activations, wide):
        if wide:  # |code| and the activation with the code's sign: the same product
            zeros = splat(self.bytes, 0)
            codes = builder.xor(codes, splat(self.bytes, 128))
            negative = builder.icmp_signed("<", codes, zeros)
            if self.sign:
                activations = call(builder, self.sign, self.bytes, [activations, codes])
            else:
                negated = builder.sub(zeros, activations)
                activations = builder.select(negative, negated, activations)
            codes = builder.select(negative, builder.sub(zeros, codes), codes)
        return call(builder, self.pairs_name, self.words, [codes, activations])

    def _fours(self, builder, pairs):
        return call(builder, self.fours_name, self.sums, [pairs, splat(self.words, 1)])

    def dot4(self, builder, acc, unsigned, signed, wide):
        """Emit acc + sums of four products; with ``wide``, codes less 128 (signed_wide)."""

        def emit(acc, codes, activations):
            return builder.add(
                acc, self._fours(builder, self._pairs(builder, codes, activations, wide))
            )

        return by_pieces(builder, emit, self.lanes, acc, unsigned, signed)

    def dots(self, builder, codes, activations, largest, halves):
        """Emit the sums of four dot4, added in 16 bits as long as that is exact."""
        size, parts = 4 * self.lanes, []
        for start in range(0, 64, size):
            registers = [
                [lanes_of(builder, v, start, size) for v in pair]
                for pair in zip(codes, activations, strict=True)
            ]
            parts.append([self._pairs(builder, *pair, largest > 127) for pair in registers])
        if halves and len(parts) == 2:
            parts = [parts[0] + parts[1]]
        sums = [self._sum(builder, pairs, terms(largest)) for pairs in parts]
        if halves and self.lanes == 8:
            sums.append(splat(self.sums, 0))
        return concatenate(builder, sums)

    def products(self, builder, total, codes, activations, largest):
        """Emit ``total`` plus products; of words, where codes are above 127."""
        if largest > 127:
            words = [[builder.bitcast(v, self.words) for v in vs] for vs in (codes, activations)]
            for pair in zip(*words, strict=True):
                total = builder.add(total, call(builder, self.fours_name, self.sums, list(pair)))
            return total
        pairs = [self._pairs(builder, *p, False) for p in zip(codes, activations, strict=True)]
        return builder.add(total, self._sum(builder, pairs, terms(largest)))

    def _sum(self, builder, pairs, together):
        groups = [pairs[i : i + together] for i in range(0, len(pairs), together)]
        return reduce(builder.add, [self._fours(builder, reduce(builder.add, g)) for g in groups])
