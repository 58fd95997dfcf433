"""Sizes that the cache, its kernels and those who fill steps agree on: numbers, no code.

Kernels compile them in, so that this module must import nothing.
"""

__all__ = ["PAGE", "PART_BYTES", "STEP_TOKENS"]

PAGE = 64  # positions of a page
STEP_TOKENS = 256  # most tokens of a decoder's step: weights are read once for all of them
PART_BYTES = 24  # a sequence's row in a step: int64 first token, tokens, address of its state
