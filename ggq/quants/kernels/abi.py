"""The arguments of a matmul kernel and the layout of quantized activations.

A kernel's items are groups of ``GROUP`` weight rows.
"""

from ggq.simd import INT, ROWS, Struct

MATMUL = Struct(
    "matmul",
    weights=INT,  # address of the first row
    row_bytes=INT,
    n_rows=INT,
    n_cols=INT,
    input=ROWS,  # the tokens' activations, or int64 numbers of rows to decode
    output=ROWS,  # float32
    bias=INT,  # address of float32 (n_rows,), or 0
    residual=INT,  # address of a float32 row to add, strides as the output's, or 0
    state=INT,  # address of the executor's state; its first int64 is the number of tokens
)
MATMUL_BYTES = MATMUL.nbytes

GROUP = 16  # rows per item: one vector of 32-bit lanes in a tile

# Quantized activations ("q8"): per token, with n padded to SUPER, int8 codes (n), then float32
# scales per 32 columns, then the sums of codes per 16 as int32.
SUPER = 256


def padded(n: int) -> int:
    """Return ``n`` rounded up to whole super-blocks."""
    return -(-n // SUPER) * SUPER


def q8_bytes(n: int) -> int:
    """Return the bytes of one token's quantized activations of ``n`` columns, in whole vectors."""
    return -(-padded(n) * 11 // 8 // 64) * 64
